/* verify.c: check every file of the bundle, run its test vectors, print a line of JSON for each; exit 0 or 1.
 *
 *     ./verify            the bundle is the folder above this one
 *     ./verify FOLDER     another copy of the same bundle
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge.h"
#include "loopedge_model.h"

static const char *check_name(loopedge_check check) {
  return check == LOOPEDGE_RELATIVE ? "relative" : check == LOOPEDGE_SQNR ? "sqnr" : "equal";
}

/* Whether the ids of a prompt begin with the bytes of its text, before a separator; another tokenizer is not in C. */
static int is_text(const loopedge_array *ids, const char *text) {
  const int64_t *id = (const int64_t *)ids->data;
  int64_t i, count = ids->shape[ids->rank - 1];
  if (!LOOPEDGE_MODEL.byte_tokenizer || !text) return 1;
  for (i = 0; text[i]; i++) {
    if (i == count || id[i] != (unsigned char)text[i]) return 0;
  }
  return 1;
}

/* A text: hold the logits behind it, or the ids that follow greedily, against those that are expected. */
static int run_text(loopedge_model *model, const loopedge_vector *vector, const loopedge_array *inputs,
                    loopedge_array *outputs, const loopedge_array *expected, loopedge_error *error) {
  const loopedge_array *ids = &inputs[0];
  size_t i, written = 0, wanted = (size_t)expected[0].shape[expected[0].rank - 1], length;
  int64_t loops = 0;
  int result;
  for (i = 0; i < vector->input_count; i++) {
    if (!strcmp(inputs[i].name, "input_ids")) ids = &inputs[i];
    if (!strcmp(inputs[i].name, "loops")) loops = *(const int64_t *)inputs[i].data;
  }
  length = (size_t)ids->shape[ids->rank - 1];
  outputs[0] = expected[0]; /* name, type and axes */
  outputs[0].data = calloc(wanted ? wanted : 1, 8);
  if (!outputs[0].data) return -1;
  if (vector->check != LOOPEDGE_EQUAL) {
    return loopedge_logits(model, (const int64_t *)ids->data, length, loops, (float *)outputs[0].data, wanted, error);
  }
  result = loopedge_generate(model, (const int64_t *)ids->data, length, wanted, loops, NULL, NULL,
                             (int64_t *)outputs[0].data, &written, error);
  if (written < wanted || !is_text(ids, vector->prompt)) outputs[0].shape[outputs[0].rank - 1] = 0;
  return result;
}

/* Order what came out as the vector lists it. */
static int run(loopedge_model *model, const loopedge_vector *vector, const loopedge_array *inputs,
               loopedge_array *outputs, loopedge_error *error) {
  size_t i, k, count = LOOPEDGE_MODEL.output_count;
  loopedge_array *all = (loopedge_array *)calloc(count ? count : 1, sizeof *all);
  int result = all ? loopedge_run(model, inputs, vector->input_count, all, error) : -1;
  for (i = 0; i < vector->output_count && !result; i++) {
    for (k = 0; k < count; k++) {
      if (strcmp(all[k].name, vector->outputs[i].name)) continue;
      outputs[i] = all[k];
      all[k].data = NULL;
    }
  }
  if (all) loopedge_free_arrays(all, count);
  free(all);
  return result;
}

static int verify(const char *bundle, loopedge_model *model, const loopedge_vector *vector) {
  loopedge_array *arrays = (loopedge_array *)calloc(vector->input_count + 2 * vector->output_count + 1, sizeof *arrays);
  loopedge_array *inputs = arrays, *expected, *outputs;
  loopedge_error error = {"there is no memory left"};
  double measured = NAN;
  size_t i;
  int result = arrays ? 0 : -1, passed = 0;
  if (!arrays) {
    fprintf(stderr, "error: %s\n", error.text);
    return 0;
  }
  expected = arrays + vector->input_count;
  outputs = expected + vector->output_count;
  for (i = 0; i < vector->input_count && !result; i++) {
    result = loopedge_read_array(bundle, &vector->inputs[i], &inputs[i], &error);
  }
  for (i = 0; i < vector->output_count && !result; i++) {
    result = loopedge_read_array(bundle, &vector->outputs[i], &expected[i], &error);
  }
  if (!result) {
    result = vector->check == LOOPEDGE_EQUAL || LOOPEDGE_MODEL.decodes
                 ? run_text(model, vector, inputs, outputs, expected, &error)
                 : run(model, vector, inputs, outputs, &error);
  }
  if (!result) {
    passed = loopedge_compare(vector->check, vector->limit, outputs, expected, vector->output_count, &measured);
  }
  if (result) fprintf(stderr, "error: %s: %s\n", vector->name, error.text);
  printf("{\"vector\": \"%s\", \"check\": \"%s\", \"limit\": %.9g, \"measured\": ", vector->name,
         check_name(vector->check), vector->limit);
  if (isnan(measured)) printf("null");
  else printf("%.9g", measured);
  printf(", \"passed\": %s}\n", passed ? "true" : "false");
  loopedge_free_arrays(arrays, vector->input_count + 2 * vector->output_count);
  free(arrays);
  return passed;
}

/* Whether a vector names a loop count that the form does not run. */
static int other_loops(const char *bundle, const loopedge_vector *vector) {
  size_t i;
  int64_t fixed = 0, loops = 0;
  loopedge_array array;
  loopedge_error error;
  for (i = 0; i < LOOPEDGE_MODEL.form_count; i++) {
    if (!strcmp(LOOPEDGE_MODEL.forms[i].id, LOOPEDGE_MODEL.form)) fixed = LOOPEDGE_MODEL.forms[i].loops;
  }
  for (i = 0; i < vector->input_count && fixed; i++) {
    if (strcmp(vector->inputs[i].name, "loops") || loopedge_read_array(bundle, &vector->inputs[i], &array, &error)) continue;
    loops = *(const int64_t *)array.data;
    loopedge_free_arrays(&array, 1);
  }
  return loops && loops != fixed;
}

int main(int count, char **words) {
  const char *bundle = count > 1 ? words[1] : "..";
  loopedge_error error;
  loopedge_options options = {LOOPEDGE_VERIFY_FULL, 1, NULL, 0};
  loopedge_model *model;
  size_t i;
  int failed = 0;
  if (loopedge_check_bundle(&LOOPEDGE_MODEL, bundle, &error)) {
    fprintf(stderr, "error: %s\n", error.text);
    return 1;
  }
  model = loopedge_open(&LOOPEDGE_MODEL, bundle, &options, &error);
  if (!model) {
    fprintf(stderr, "error: %s\n", error.text);
    return 1;
  }
  for (i = 0; i < LOOPEDGE_MODEL.vector_count; i++) {
    const loopedge_vector *vector = &LOOPEDGE_MODEL.vectors[i];
    if (other_loops(bundle, vector)) fprintf(stderr, "%s is left out: the model runs another loop count\n", vector->name);
    else if (!verify(bundle, model, vector)) failed = 1;
  }
  loopedge_close(model);
  return failed;
}
