"""The page in English."""

__all__ = ["ANSWERS", "ARMS", "BASELINES", "OUTCOMES", "TEXTS", "UNITS"]

OUTCOMES = {"yes": "Yes", "no": "No", "undecided": "Undecided"}

ANSWERS = ("Yes: ", "No: ", "Undecided: ")
"""How the first sentence of a verdict begins."""

ARMS = {
    "looped": "one block applied again and again, every time alike",
    "constant": "the same, with learned gates that are equal in every iteration: the fair control",
    "timestep": "the same, with gates that differ by iteration (timestep encoding)",
    "elastic": "the plain loop, trained with loop counts drawn at random: one model for all of them",
    "untied": "as many blocks as loops, each with weights of its own",
    "narrow": "the same, so narrow that all of them hold as many weights as one looped block",
}

BASELINES: dict[str, str] = {}
"""Their names are English already."""

UNITS = {"s": "s", "min": "min", "h": "h"}

TEXTS = {
    "title": "loopedge pilot",
    "unfinished": "The pilot is not finished: {made} of {planned} runs are made. What follows is what they say.",
    "note": "Note: {text}",
    # First screen
    "question": "Is a looped model worth it for {task}?",
    "against": "{metric} {quality}; {baseline}: {value}",
    "against_model": "{model}: {text}",
    "against_better": "{gap} better ({interval})",
    "against_worse": "{gap} worse ({interval})",
    "against_equal": "as good, within the margin ({interval})",
    "against_undecided": "too close to call ({interval})",
    "interval": "95 %: {low} to {high}",
    "clauses": "{first}; {second}",
    "sentence": "{text}.",
    "cost": "Cost",
    "cost_text": "{file} file, {memory} peak, {time} a sample",
    "cost_ratio": "{ratio} the time of {fewest}",
    "cost_busy": "measured on a busy machine",
    "cost_none": "not measured",
    "saves": "Saves",
    "saves_untied": "{file} instead of {untied} untied",
    "int8": "int8",
    "int8_text": "{file}, {time} a sample",
    "int8_slower": "slower here",
    "int8_loss": "{share} worse",
    "int8_none": "no int8 model",
    "sure": "Sure",
    "sure_share": "{share} within the margin ({margin})",
    "weak": "Weak",
    "weak_converged": "{count} of {of} runs still improving",
    "weak_diverged": "{count} of {of} diverged",
    "weak_failed": "{count} of {of} failed",
    "weak_int8": "{count} without int8",
    "weak_visible": "cannot see differences below {value}",
    "weak_none": "nothing stood out",
    "next": "Next",
    "next_more_seeds_one": "{count} more seed",
    "next_more_seeds_many": "{count} more seeds",
    "next_more_origins": "{count} test periods",
    "next_longer_data": "a longer test period",
    "next_longer_training": "train longer",
    "next_wider_margin": "a margin of {margin}",
    "next_more_loops": "compare more loop counts",
    "next_deploy": "deploy {model}",
    "next_take_baseline": "take the baseline {baseline}",
    "next_compare_untied": "compare with the untied network",
    "next_mend_runs": "mend the runs that failed",
    "next_go_on": "make the missing runs",
    "next_about": "about {time}",
    "command_below": "command below",
    "first_caption": "{metric} on the test split, {better} is better; whiskers: deviation; ticks: strongest baseline",
    "higher": "higher",
    "lower": "lower",
    "off_chart": "beyond the chart: {names}",
    # Names
    "loops_one": "1 loop",
    "loops_many": "{count} loops",
    "seeds_one": "1 seed",
    "seeds_many": "{count} seeds",
    "seeds_origins": "{seeds} at {origins} test periods",
    "untied_twin": "float, untied twin",
    # Findings
    "found": "What was found",
    "next_command": "The command of the next step:",
    "arms_note": "More loops: more depth, same weights.",
    # Leaderboard
    "leaderboard": "Leaderboard",
    "head_model": "model",
    "head_kind": "kind",
    "head_validation": "validation",
    "head_test": "test",
    "head_mase": "MASE",
    "head_runs": "runs",
    "kind_looped": "looped",
    "kind_unlooped": "without a loop",
    "kind_plain": "baseline",
    "recommended": "recommended",
    "upper_bound": "upper bound",
    "runs_of": "{finished} of {runs}",
    "no_score": "no score",
    "undefined": "undefined",
    "leaderboard_note": "{metric}, {better} is better, mean over the runs; ± is one standard deviation over the seeds "
    "and test periods. The order is that of the validation split, which alone chooses; the test split judges. Rows that "
    "failed stay.",
    "mase_note": "MASE: mean absolute error in units of the seasonal-naive error in training ({season}); below 1 is "
    "better than that.",
    "season_one": "one table row back",
    "season_many": "{count} table rows back",
    "upper_bound_note": "An upper bound is the best estimate there is: no model is expected to beat it.",
    # Quality against cost
    "quality_cost": "Quality against cost",
    "against_time": "{metric} against the time of a sample; filled: float, hollow: int8, line: the Pareto front",
    "against_memory": "{metric} against peak memory",
    "axis_time": "{unit} a sample",
    "axis_memory": "peak memory, {unit}",
    "pareto": "Pareto front",
    "head_precision": "precision",
    "head_parameters": "parameters",
    "head_file": "file",
    "head_memory": "after load",
    "head_peak": "peak",
    "head_p50": "p50",
    "head_ratio": "time",
    "cost_note": "One model of each arm and loop count was measured, for cost does not depend on the values of the "
    "weights: each in a process of its own, in turns, on {threads}, batch {batch}. Memory is the growth over the imported "
    "runtime: what stays after loading, and the most it ever took. p50 is the median time of a sample, time its ratio to "
    "the first row. The untied twin has weights of its own for each iteration. Plain baselines run without a network.",
    "threads_one": "1 thread",
    "threads_many": "{count} threads",
    "busy_note": "The machine was busy while the models were measured: bytes and time ratios hold, take p50 again.",
    # Depth
    "depths": "Depth after training",
    "trained_at": "trained with {loops}",
    "split_validation": "validation",
    "split_test": "test",
    "axis_loops": "loops that it runs",
    "depths_note": "Each trained model, run with other loop counts than it was trained with: solid on the test split, "
    "dashed on validation, the trained count as a ring. A flat curve may be stopped early; one that gets worse past the ring "
    "wants no more loops than it was trained with. These curves are shown, they choose nothing.",
    "head_loops": "loops",
    "early_exit": "Early exit",
    "head_exit_runs": "runs that may",
    "head_exit_loops": "mean loops",
    "head_exit_test": "test, stopped early",
    "head_exit_tolerance": "tolerance",
    "early_exit_note": "Stopped early: a sample ends its loop when its state changes by less than the tolerance, as loopedge export --exit tolerance=X does. The tolerance was chosen on the validation split, where it costs at most 1 %; means over the runs that may.",
    # Stability
    "stability": "Stability",
    "head_arm": "arm",
    "head_made": "runs",
    "head_diverged": "diverged",
    "head_failed": "failed",
    "head_not_converged": "still improving",
    "head_rate": "learning rate",
    "head_gradient": "largest gradient",
    "head_update": "relative update, first to last",
    "stability_note": "Still improving: runs whose last quarter of the steps still gained more than counts. Relative update: by how much an "
    "iteration changes the state, mean over the seeds; values that do not shrink towards the end say that the loop has "
    "not settled.",
    "reasons": "Runs without a result",
    "reason_int8": "no int8",
    "status_diverged": "diverged",
    "status_failed": "failed",
    # Windows
    "windows": "Forecasts",
    "windows_caption_median": "a window of median error",
    "windows_caption_worst": "a window of the worst tenth",
    "window_of": "{target}, {chosen}",
    "window_series": "{target} of {series}, {chosen}",
    "window_error": "error {model} of {candidate}",
    "window_error_both": "error {model} of {candidate}, {other} of {baseline}",
    "truth": "observed",
    "axis_steps": "table rows from the forecast on",
    "windows_note": "Windows of the test split of {candidate}, chosen by rule: two whose error is the median, one at the "
    "limit of the worst tenth. These are the only values of the data on this page.",
    # How it was decided
    "decided": "How it was decided",
    "rule_margin": "Margin: a difference in {metric} below {value} does not matter ({text}).",
    "rule_margin_of": "{text} of the strongest baseline's error",
    "rule_margin_number": "as it was asked for",
    "rule_loops": "Loops: on the validation split the loop counts are walked from the fewest up. One is accepted when it is "
    "within the margin of the best with a probability of at least {accept}, and passed by at {reject} or less; in "
    "between it is undecided, and more seeds are needed.",
    "rule_test": "Claims: the test split chooses nothing. A model beats a baseline when the 95 % interval of their "
    "difference, over the runs and over the test period, and over all models that are compared at once, says so.",
    "rule_unlooped": "Networks without a loop are compared with and never recommended.",
    "looks": "Looks",
    "head_seeds": "seeds",
    "head_outcome": "outcome",
    "head_took": "time",
    "looks_note": "Seeds were added until it was decided.",
    "left_out": "Left out by the budget",
    "left_worse": "{model}: among the worse on the validation split ({score}) with {share} of the steps",
    "left_longest": "{model}: it takes longest",
    "left_runs_one": "{count} run of the last seed: no time was left for it",
    "left_runs_many": "{count} runs of the last seeds: no time was left for them",
    # How it was measured
    "measured": "How it was measured",
    "fact_task": "task",
    "fact_split": "split",
    "fact_model": "model",
    "fact_training": "training",
    "fact_seeds": "seeds",
    "seeds_from": "{count}, from {first} on",
    "fact_processor": "processor",
    "processor": "{cpu}, {cores} cores",
    "fact_runtime": "runtime",
    "runtime": "ONNX Runtime {onnxruntime}, loopedge {loopedge}",
    "fact_took": "took",
    "fact_command": "command",
    "by_task": "by the task",
    "off_chart_level": "{name} ({value}, off the chart)",
    "separator": ", ",
    "no_value": "No run gave a value.",
}
