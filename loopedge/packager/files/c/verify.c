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

/* Write on behind the ids of a text vector, and hold the ids against those that are expected. */
static int generate(loopedge_model *model, const loopedge_vector *vector, const loopedge_array *inputs,
                    loopedge_array *outputs, const loopedge_array *expected, loopedge_error *error) {
  size_t i, written = 0, wanted, length;
  int64_t *ids;
  for (i = 0; i + 1 < vector->input_count && inputs[i].dtype != LOOPEDGE_INT64; i++) {
  }
  length = (size_t)inputs[i].shape[inputs[i].rank - 1];
  wanted = (size_t)expected[0].shape[expected[0].rank - 1];
  ids = (int64_t *)calloc(wanted ? wanted : 1, sizeof *ids);
  if (!ids) return -1;
  outputs[0] = expected[0]; /* name, type and axes */
  outputs[0].data = ids;
  if (loopedge_generate(model, (const int64_t *)inputs[i].data, length, wanted, 0, NULL, NULL, ids, &written, error)) {
    return -1;
  }
  if (written < wanted) outputs[0].shape[outputs[0].rank - 1] = (int64_t)written;
  return 0;
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
    result = vector->check == LOOPEDGE_EQUAL ? generate(model, vector, inputs, outputs, expected, &error)
                                             : run(model, vector, inputs, outputs, &error);
  }
  if (!result) passed = loopedge_compare(vector, outputs, expected, vector->output_count, &measured);
  else fprintf(stderr, "error: %s: %s\n", vector->name, error.text);
  printf("{\"vector\": \"%s\", \"check\": \"%s\", \"limit\": %.9g, \"measured\": ", vector->name,
         check_name(vector->check), vector->limit);
  if (isnan(measured)) printf("null");
  else printf("%.9g", measured);
  printf(", \"passed\": %s}\n", passed ? "true" : "false");
  loopedge_free_arrays(arrays, vector->input_count + 2 * vector->output_count);
  free(arrays);
  return passed;
}

/* Return the form that a vector is of: ids come from the one that decodes, where there is one. */
static const char *form_of(const loopedge_vector *vector) {
  size_t i;
  const loopedge_form *plain = NULL, *decodes = NULL, *own = NULL;
  for (i = 0; i < LOOPEDGE_MODEL.form_count; i++) {
    const loopedge_form *form = &LOOPEDGE_MODEL.forms[i];
    if (form->decodes && !decodes) decodes = form;
    if (!form->decodes && !plain) plain = form;
    if (!strcmp(form->id, LOOPEDGE_MODEL.form)) own = form;
  }
  if (vector->check == LOOPEDGE_EQUAL) return decodes ? decodes->id : LOOPEDGE_MODEL.form;
  return own && own->decodes && plain ? plain->id : LOOPEDGE_MODEL.form;
}

int main(int count, char **words) {
  const char *bundle = count > 1 ? words[1] : "..", *opened = NULL;
  loopedge_error error;
  loopedge_options options = {LOOPEDGE_VERIFY_FULL, 1, NULL};
  loopedge_model *model = NULL;
  size_t i;
  int failed = 0;
  if (loopedge_check_bundle(&LOOPEDGE_MODEL, bundle, &error)) {
    fprintf(stderr, "error: %s\n", error.text);
    return 1;
  }
  for (i = 0; i < LOOPEDGE_MODEL.vector_count; i++) {
    const loopedge_vector *vector = &LOOPEDGE_MODEL.vectors[i];
    options.form = form_of(vector);
    if (!opened || strcmp(opened, options.form)) {
      loopedge_close(model);
      model = loopedge_open(&LOOPEDGE_MODEL, bundle, &options, &error);
      opened = options.form;
    }
    if (!model) {
      fprintf(stderr, "error: %s\n", error.text);
      return 1;
    }
    if (!verify(bundle, model, vector)) failed = 1;
  }
  loopedge_close(model);
  return failed;
}
