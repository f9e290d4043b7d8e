/* example.c: open the bundle, run its first test vector, print what comes out. Replace the window by your own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge.h"
#include "loopedge_model.h"

static int print_token(int64_t id, void *data) {
  (void)data;
  if (LOOPEDGE_MODEL.byte_tokenizer) putchar((int)id); /* an id is a byte of UTF-8 */
  else printf("%.0f ", (double)id);                    /* tokenizer.json says which text an id is */
  fflush(stdout);
  return 0; /* another number ends the text */
}

/* A text: write on behind the ids of the vector. */
static int write_on(loopedge_model *model, const loopedge_array *prompt, loopedge_error *error) {
  size_t written, count = LOOPEDGE_MODEL.new_tokens ? (size_t)LOOPEDGE_MODEL.new_tokens : 32;
  int64_t *ids = (int64_t *)malloc(count * sizeof *ids);
  int result;
  if (!ids) return -1;
  result = loopedge_generate(model, (const int64_t *)prompt->data, (size_t)prompt->shape[prompt->rank - 1], count, 0,
                             print_token, NULL, ids, &written, error);
  putchar('\n');
  free(ids);
  return result;
}

/* A window: raw units in, raw units out. */
static int forecast(loopedge_model *model, const loopedge_array *inputs, size_t count, loopedge_error *error) {
  loopedge_array *outputs = (loopedge_array *)calloc(LOOPEDGE_MODEL.output_count, sizeof *outputs);
  size_t i, k, values = 1;
  if (!outputs || loopedge_run(model, inputs, count, outputs, error)) {
    free(outputs);
    return -1;
  }
  for (i = 0; i < LOOPEDGE_MODEL.output_count; i++) {
    for (k = 0, values = 1; k < outputs[i].rank; k++) values *= (size_t)outputs[i].shape[k];
    printf("%s:", outputs[i].name);
    for (k = 0; k < values && k < 24; k++) {
      if (outputs[i].dtype == LOOPEDGE_FLOAT32) printf(" %g", ((const float *)outputs[i].data)[k]);
      else if (outputs[i].dtype == LOOPEDGE_FLOAT64) printf(" %g", ((const double *)outputs[i].data)[k]);
      else if (outputs[i].dtype == LOOPEDGE_INT64) printf(" %.0f", (double)((const int64_t *)outputs[i].data)[k]);
    }
    printf("%s\n", k < values ? " ..." : "");
  }
  loopedge_free_arrays(outputs, LOOPEDGE_MODEL.output_count);
  free(outputs);
  return 0;
}

int main(int count, char **words) {
  const char *bundle = count > 1 ? words[1] : "..";
  const loopedge_vector *vector = LOOPEDGE_MODEL.vectors;
  loopedge_array *inputs;
  loopedge_error error = {"the bundle has no test vectors"};
  loopedge_model *model = NULL;
  size_t i;
  int result = vector ? 0 : -1;
  inputs = (loopedge_array *)calloc(vector ? vector->input_count : 1, sizeof *inputs);
  if (!inputs) return 1;
  for (i = 0; !result && i < vector->input_count; i++) {
    result = loopedge_read_array(bundle, &vector->inputs[i], &inputs[i], &error);
  }
  if (!result) model = loopedge_open(&LOOPEDGE_MODEL, bundle, NULL, &error);
  if (!model) result = -1;
  else if (LOOPEDGE_MODEL.has_tokenizer) result = write_on(model, &inputs[0], &error);
  else result = forecast(model, inputs, vector->input_count, &error);
  if (result) fprintf(stderr, "error: %s\n", error.text);
  if (vector) loopedge_free_arrays(inputs, vector->input_count);
  free(inputs);
  loopedge_close(model);
  return result ? 1 : 0;
}
