/* loopedge_text.c: texts are written on, token by token, with a cache where the model has one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge_internal.h"

#define CHUNK 256 /* tokens of a prompt that are computed at once: activations grow with it */

/* The keys, or the values, of one slot: one buffer, bound as past and as present. */
typedef struct slot {
  void *buffer;
  OrtValue *value;
} slot;

typedef struct text {
  loopedge_model *model;
  OrtIoBinding *binding;
  slot *slots; /* by the number of the input; what is no past has none */
  int64_t context, chunk, vocabulary, id, *chunk_ids;
  int32_t length;
  float *logits;
  OrtValue *id_value, *length_value, *logits_value;
} text;

/* Read type and axes of an input or output; a free axis is -1. */
static int read_type(const loopedge_model *model, int output, size_t place, loopedge_array *array,
                     loopedge_error *error) {
  const OrtApi *api = model->api;
  OrtTypeInfo *info = NULL;
  const OrtTensorTypeAndShapeInfo *tensor = NULL;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  const char *name = output ? model->output_names[place] : model->input_names[place];
  int result = le_check(api,
                     output ? api->SessionGetOutputTypeInfo(model->session, place, &info)
                            : api->SessionGetInputTypeInfo(model->session, place, &info),
                     name, error);
  memset(array, 0, sizeof *array);
  array->name = name;
  if (!result) result = le_check(api, api->CastTypeInfoToTensorInfo(info, &tensor), name, error);
  if (!result && !tensor) result = le_fail(error, "%s is no tensor", name);
  if (!result) result = le_check(api, api->GetTensorElementType(tensor, &type), name, error);
  if (!result) result = le_check(api, api->GetDimensionsCount(tensor, &array->rank), name, error);
  if (!result && array->rank > LOOPEDGE_RANK) result = le_fail(error, "%s: %.0f axes", name, (double)array->rank);
  if (!result) result = le_check(api, api->GetDimensions(tensor, array->shape, array->rank), name, error);
  api->ReleaseTypeInfo(info);
  array->dtype = (loopedge_dtype)type;
  return result;
}

/* Say which size the axes of a slot have: (loops, [inner loops,] batch, kv heads, positions, head size), in the unrolled
 * form (batch, kv heads, positions, head size). */
static int size_slot(const text *of, loopedge_array *array, int64_t loops, loopedge_error *error) {
  const loopedge_manifest *manifest = of->model->manifest;
  const loopedge_port *port = le_find_port(manifest->inputs, manifest->input_count, array->name);
  size_t i;
  if (!manifest->dynamic_loops && port && port->rank == array->rank && port->shape[0] > 0) loops = port->shape[0];
  if (array->rank < 4) return le_fail(error, "%s: %.0f axes are none of a cache", array->name, (double)array->rank);
  for (i = 0; i < array->rank; i++) {
    int64_t wanted = i == array->rank - 4 ? 1 : i == array->rank - 2 ? of->context : i == 0 ? loops : 0;
    if (array->shape[i] < 0) array->shape[i] = wanted;
    else if (i == 0 && array->rank > 4 && loops != manifest->default_loops && array->shape[i] != loops) {
      return le_fail(error, "%s runs %.0f loops, %.0f were asked for", of->model->form->id, (double)array->shape[i],
                  (double)loops);
    }
    if (array->shape[i] < 1) return le_fail(error, "%s: the size of axis %.0f is not known", array->name, (double)(i + 1));
  }
  return 0;
}

/* Find the past of a present: of its own name, or, where all iterations share one, of the name without the iteration. */
static int past_of(const loopedge_model *model, const char *present, size_t *place) {
  const char *name = present + strlen("present."), *rest = strchr(name, '.'), *last = rest ? strchr(rest + 1, '.') : NULL;
  size_t i, head = rest ? (size_t)(rest - name) : 0;
  for (i = 0; i < model->input_count; i++) {
    const char *past = model->input_names[i];
    if (strncmp(past, "past.", 5)) continue;
    if (!strcmp(past + 5, name) || (last && !strncmp(past + 5, name, head) && !strcmp(past + 5 + head, last))) {
      *place = i;
      return 1;
    }
  }
  return 0;
}

static void close_text(text *of) {
  const OrtApi *api = of->model->api;
  size_t i;
  for (i = 0; of->slots && i < of->model->input_count; i++) {
    api->ReleaseValue(of->slots[i].value);
    free(of->slots[i].buffer);
  }
  api->ReleaseValue(of->id_value);
  api->ReleaseValue(of->length_value);
  api->ReleaseValue(of->logits_value);
  api->ReleaseIoBinding(of->binding);
  free(of->slots);
  free(of->chunk_ids);
  free(of->logits);
}

static OrtValue *wrap_axes(const text *of, const char *name, loopedge_dtype dtype, void *data, size_t rank, int64_t first,
                           int64_t second, int64_t third, loopedge_error *error) {
  loopedge_array array;
  array.name = name;
  array.dtype = dtype;
  array.rank = rank;
  array.shape[0] = first;
  array.shape[1] = second;
  array.shape[2] = third;
  array.data = data;
  return le_wrap(of->model, &array, error);
}

static int bind_pasts(text *of, int64_t loops, loopedge_error *error) {
  const loopedge_model *model = of->model;
  const OrtApi *api = model->api;
  loopedge_array array;
  size_t i;
  for (i = 0; i < model->input_count; i++) {
    const char *name = model->input_names[i];
    if (!strcmp(name, "input_ids") || !strcmp(name, "lengths")) continue;
    if (strncmp(name, "past.", 5)) return le_fail(error, "%s: input %s is none of a cache", model->form->id, name);
    if (read_type(model, 0, i, &array, error) || size_slot(of, &array, loops, error)) return -1;
    of->slots[i].buffer = calloc(le_elements(array.shape, array.rank), loopedge_element_bytes(array.dtype));
    if (!of->slots[i].buffer) return le_fail(error, "there is no memory for a cache of %.0f positions", (double)of->context);
    array.data = of->slots[i].buffer;
    of->slots[i].value = le_wrap(model, &array, error);
    if (!of->slots[i].value) return -1;
    if (le_check(api, api->BindInput(of->binding, name, of->slots[i].value), name, error)) return -1;
  }
  return 0;
}

static int bind_outputs(text *of, loopedge_error *error) {
  const loopedge_model *model = of->model;
  const OrtApi *api = model->api;
  loopedge_array array;
  size_t i, place;
  for (i = 0; i < model->output_count; i++) {
    const char *name = model->output_names[i];
    OrtStatus *status;
    if (!strcmp(name, "logits")) {
      if (read_type(model, 1, i, &array, error)) return -1;
      of->vocabulary = array.rank == 3 && array.shape[2] > 0 ? array.shape[2] : model->manifest->vocabulary;
      if (array.dtype != LOOPEDGE_FLOAT32 || of->vocabulary < 1) return le_fail(error, "logits: float32 is needed");
      of->logits = (float *)calloc((size_t)of->vocabulary, sizeof(float));
      if (!of->logits) return le_no_memory(error);
      of->logits_value = wrap_axes(of, name, LOOPEDGE_FLOAT32, of->logits, 3, 1, 1, of->vocabulary, error);
      if (!of->logits_value) return -1;
      status = api->BindOutput(of->binding, name, of->logits_value);
    } else if (!strncmp(name, "present.", 8)) {
      if (!past_of(model, name, &place)) return le_fail(error, "%s: output %s has no past", model->form->id, name);
      status = api->BindOutput(of->binding, name, of->slots[place].value);
    } else {
      status = api->BindOutputToDevice(of->binding, name, model->memory);
    }
    if (le_check(api, status, name, error)) return -1;
  }
  return 0;
}

/* Whether what is computed depends on where a prompt is cut. */
static int takes_whole_prompts(const loopedge_model *model) {
  size_t i, pasts = 0, presents = 0;
  for (i = 0; i < model->input_count; i++) pasts += !strncmp(model->input_names[i], "past.", 5);
  for (i = 0; i < model->output_count; i++) {
    presents += !strncmp(model->output_names[i], "present.", 8);
    if (!strcmp(model->output_names[i], "iterations")) return 1;
  }
  return presents > pasts;
}

static int open_text(text *of, int64_t longest, int64_t loops, loopedge_error *error) {
  const loopedge_model *model = of->model;
  const OrtApi *api = model->api;
  size_t i;
  loopedge_array array;
  of->context = longest;
  for (i = 0; i < model->input_count; i++) { /* a file may fix the positions */
    if (strncmp(model->input_names[i], "past.", 5)) continue;
    if (read_type(model, 0, i, &array, error)) return -1;
    if (array.rank > 1 && array.shape[array.rank - 2] > 0) of->context = array.shape[array.rank - 2];
  }
  of->slots = (slot *)calloc(model->input_count, sizeof *of->slots);
  of->chunk_ids = (int64_t *)calloc((size_t)of->chunk, sizeof *of->chunk_ids);
  if (!of->slots || !of->chunk_ids) return le_no_memory(error);
  if (le_check(api, api->CreateIoBinding(model->session, &of->binding), model->form->id, error)) return -1;
  of->id_value = wrap_axes(of, "input_ids", LOOPEDGE_INT64, &of->id, 2, 1, 1, 0, error);
  of->length_value = wrap_axes(of, "lengths", LOOPEDGE_INT32, &of->length, 1, 1, 0, 0, error);
  if (!of->id_value || !of->length_value) return -1;
  if (le_check(api, api->BindInput(of->binding, "lengths", of->length_value), "lengths", error)) return -1;
  if (bind_pasts(of, loops, error)) return -1;
  return bind_outputs(of, error);
}

/* Put tokens behind the text; what follows is in its logits then. */
static int go_on(text *of, const int64_t *ids, int64_t count, loopedge_error *error) {
  const OrtApi *api = of->model->api;
  OrtValue *value = of->id_value;
  int result;
  of->id = ids[0];
  if (count > 1) {
    memcpy(of->chunk_ids, ids, (size_t)count * sizeof *ids);
    value = wrap_axes(of, "input_ids", LOOPEDGE_INT64, of->chunk_ids, 2, 1, count, 0, error);
    if (!value) return -1;
  }
  of->length += (int32_t)count;
  result = le_check(api, api->BindInput(of->binding, "input_ids", value), "input_ids", error);
  if (!result) {
    unsigned before = le_flush_denormals();
    result = le_check(api, api->RunWithBinding(of->model->session, NULL, of->binding), of->model->form->id, error);
    le_restore_denormals(before);
  }
  if (count > 1) api->ReleaseValue(value);
  return result;
}

/* Return the most likely token, the first of those that are as likely; -1 where a number is not finite. */
static int64_t most_likely(const float *logits, int64_t count) {
  int64_t i, best = 0;
  for (i = 0; i < count; i++) {
    if (!isfinite(logits[i])) return -1;
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

static int ends(const loopedge_manifest *manifest, int64_t id) {
  size_t i;
  for (i = 0; i < manifest->end_id_count; i++) {
    if (manifest->end_ids[i] == id) return 1;
  }
  return 0;
}

/* Compute what follows a text with a form without a cache; the tokens before are computed again each time. */
static int whole_text(loopedge_model *model, const int64_t *ids, int64_t count, int64_t loops, float *logits,
                      int64_t vocabulary, loopedge_error *error) {
  const loopedge_manifest *manifest = model->manifest;
  loopedge_array inputs[2], *outputs = (loopedge_array *)calloc(manifest->output_count, sizeof *outputs);
  size_t place, i, used = 1;
  const loopedge_port *port = le_input_of(manifest, LOOPEDGE_IDS, &place);
  int result = outputs ? 0 : le_no_memory(error);
  memset(inputs, 0, sizeof inputs);
  inputs[0].name = port->name;
  inputs[0].dtype = LOOPEDGE_INT64;
  inputs[0].rank = 2;
  inputs[0].shape[0] = 1;
  inputs[0].shape[1] = count;
  inputs[0].data = (void *)ids; /* read alone */
  port = le_input_of(manifest, LOOPEDGE_LOOPS, &place);
  if (port && loops) {
    inputs[1].name = port->name;
    inputs[1].dtype = LOOPEDGE_INT64;
    inputs[1].data = &loops;
    used = 2;
  }
  if (!result) result = loopedge_run(model, inputs, used, outputs, error);
  for (i = 0; !result && manifest->outputs[i].role != LOOPEDGE_LOGITS; i++) {
  }
  if (!result && (outputs[i].rank != 3 || outputs[i].dtype != LOOPEDGE_FLOAT32 || outputs[i].shape[2] != vocabulary)) {
    result = le_fail(error, "%s: gives no logits float32 (batch, sequence, %.0f)", manifest->name, (double)vocabulary);
  }
  if (!result) {
    memcpy(logits, (const float *)outputs[i].data + (outputs[i].shape[1] - 1) * vocabulary,
           (size_t)vocabulary * sizeof *logits);
  }
  if (outputs) loopedge_free_arrays(outputs, manifest->output_count);
  free(outputs);
  return result;
}

/* Return how many numbers the logits of a token are; 0 where the model writes no text. */
static int64_t logits_count(const loopedge_manifest *manifest) {
  size_t i, place;
  if (!le_input_of(manifest, LOOPEDGE_IDS, &place)) return 0;
  for (i = 0; i < manifest->output_count; i++) {
    const loopedge_port *port = &manifest->outputs[i];
    if (port->role == LOOPEDGE_LOGITS && port->rank == 3) return port->shape[2] > 0 ? port->shape[2] : manifest->vocabulary;
  }
  return 0;
}

static int check_prompt(const loopedge_model *model, const int64_t *prompt, size_t length, int64_t loops,
                        loopedge_error *error) {
  const loopedge_manifest *manifest = model->manifest;
  int64_t fixed;
  size_t i;
  if (!length) return le_fail(error, "the prompt is empty, at least one token is needed");
  if (manifest->text_context && length > (size_t)manifest->text_context) {
    return le_fail(error, "the prompt has %.0f tokens, the model takes at most %.0f", (double)length,
                (double)manifest->text_context);
  }
  for (i = 0; i < length; i++) {
    if (prompt[i] < 0 || (manifest->vocabulary && prompt[i] >= manifest->vocabulary)) {
      return le_fail(error, "the prompt: token %.0f is %.0f, the model takes ids from 0 to %.0f", (double)(i + 1),
                  (double)prompt[i], (double)manifest->vocabulary - 1);
    }
  }
  if (!loops) return 0;
  if (manifest->dynamic_loops && !model->form->loops) return le_check_loops(manifest, (double)loops, error);
  fixed = model->form->loops ? model->form->loops : manifest->default_loops;
  if (loops == fixed) return 0;
  return le_fail(error, "%s runs %.0f loops, %.0f were asked for", model->form->files[0].path, (double)fixed,
                 (double)loops);
}

/* Compute the prompt; what follows is in the logits then. */
static int read_prompt(text *of, const int64_t *prompt, int64_t length, int64_t longest, int64_t loops,
                       loopedge_error *error) {
  loopedge_model *model = of->model;
  int64_t done;
  if (!logits_count(model->manifest)) return le_fail(error, "%s: writes no text", model->manifest->name);
  if (!model->manifest->decodes) {
    of->context = longest;
    of->vocabulary = logits_count(model->manifest);
    of->logits = (float *)calloc((size_t)of->vocabulary, sizeof *of->logits);
    return of->logits ? whole_text(model, prompt, length, loops, of->logits, of->vocabulary, error) : le_no_memory(error);
  }
  of->chunk = takes_whole_prompts(model) ? length : CHUNK;
  if (open_text(of, longest, loops ? loops : model->manifest->default_loops, error)) return -1;
  if (length > of->context) {
    return le_fail(error, "the prompt has %.0f tokens, the cache holds %.0f", (double)length, (double)of->context);
  }
  for (done = 0; done < length; done += of->chunk) {
    if (go_on(of, prompt + done, length - done < of->chunk ? length - done : of->chunk, error)) return -1;
  }
  return 0;
}

int loopedge_logits(loopedge_model *model, const int64_t *prompt, size_t prompt_length, int64_t loops, float *logits,
                    size_t count, loopedge_error *error) {
  text of;
  int result;
  le_start_error(error);
  if (check_prompt(model, prompt, prompt_length, loops, error)) return -1;
  memset(&of, 0, sizeof of);
  of.model = model;
  result = read_prompt(&of, prompt, (int64_t)prompt_length, (int64_t)prompt_length, loops, error);
  if (!result && (size_t)of.vocabulary != count) {
    result = le_fail(error, "the logits of a token are %.0f numbers, there is room for %.0f", (double)of.vocabulary,
                  (double)count);
  }
  if (!result) memcpy(logits, of.logits, count * sizeof *logits);
  close_text(&of);
  return result;
}

int loopedge_generate(loopedge_model *model, const int64_t *prompt, size_t prompt_length, size_t new_tokens,
                      int64_t loops, loopedge_on_token on_token, void *data, int64_t *ids, size_t *written,
                      loopedge_error *error) {
  const loopedge_manifest *manifest = model->manifest;
  int64_t longest = (int64_t)(prompt_length + new_tokens), held = (int64_t)prompt_length, next, *all = NULL;
  text of;
  int result;
  *written = 0;
  le_start_error(error);
  if (check_prompt(model, prompt, prompt_length, loops, error)) return -1;
  if (manifest->text_context && longest > manifest->text_context) longest = manifest->text_context;
  memset(&of, 0, sizeof of);
  of.model = model;
  result = read_prompt(&of, prompt, held, longest, loops, error);
  if (!result && !model->manifest->decodes) {
    all = (int64_t *)malloc((size_t)longest * sizeof *all);
    if (all) memcpy(all, prompt, prompt_length * sizeof *all);
    else result = le_no_memory(error);
  }
  while (!result && *written < new_tokens) {
    next = most_likely(of.logits, of.vocabulary);
    if (next < 0) result = le_fail(error, "%s: NaN or infinite logits after token %.0f", model->form->id, (double)held);
    if (result || ends(manifest, next)) break;
    ids[(*written)++] = next; /* the last one need not be in the cache */
    if ((on_token && on_token(next, data)) || *written == new_tokens || held >= of.context) break;
    held++;
    if (!all) result = go_on(&of, &next, 1, error);
    else {
      all[held - 1] = next;
      result = whole_text(model, all, held, loops, of.logits, of.vocabulary, error);
    }
  }
  close_text(&of);
  free(all);
  return result;
}
