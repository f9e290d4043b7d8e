"""Which model types are exported from their folders, and which are not, with the reason."""

__all__ = ["ADAPTED", "PUBLISHED", "REFUSED", "SAME_REASON"]

PUBLISHED = {
    "dory": "dory",
    "hrm_text": "hrm_text",
    "huginn_raven": "huginn",
    "nanbeige": "nanbeige",
    "ouro": "ouro",
}
"""Model types, and the file of this room that holds the ``CONFIG`` and the ``MODULE`` of each."""

ADAPTED = frozenset({"hrm_text"})
"""Types that have an adapter too (`loopedge.model.adapters`): it takes their folders, unless text is generated."""

REFUSED = {
    "iquestloopcoder": "its second loop attends to the keys and values of its first one, beside a window of its own: "
    "no single body is looped",
    "inkling2_loop": "its later passes start again from the state before the loop, and read the block states of the "
    "whole pass before: no single state is carried",
}
"""Model types of looped models that are not exported, and why."""

SAME_REASON = {"iquest_loopcoder": "iquestloopcoder", "inkling2": "inkling2_loop"}
