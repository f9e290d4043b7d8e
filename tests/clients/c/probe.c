/* probe.c: the whole interface of loopedge.h from a command line, for tests.
 *
 *     probe BUNDLE [verify=size] [form=ID] [seed=N] run OUT NAME:TYPE:SIZES:FILE ...     outputs go to OUT/NAME.bin
 *     probe BUNDLE generate TOKENS LOOPS ID ...                                          prints ids
 *     probe - sha256 SIZE ...                                                            of bytes 7 i mod 256
 *
 * An error is one line on stderr and exit status 1; a warning one line on stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge.h"
#include "loopedge_model.h"

#define MOST 16

static loopedge_dtype dtype_of(const char *name) {
  if (!strcmp(name, "int64")) return LOOPEDGE_INT64;
  if (!strcmp(name, "int32")) return LOOPEDGE_INT32;
  if (!strcmp(name, "float64")) return LOOPEDGE_FLOAT64;
  return LOOPEDGE_FLOAT32;
}

/* Read NAME:TYPE:2,3:FILE; the word is cut into pieces. */
static int read_word(char *word, loopedge_array *array, loopedge_error *error) {
  loopedge_array_file file;
  char *type = strchr(word, ':') + 1, *sizes = strchr(type, ':') + 1, *path = strchr(sizes, ':') + 1;
  type[-1] = sizes[-1] = path[-1] = '\0';
  memset(&file, 0, sizeof file);
  file.name = word;
  file.dtype = dtype_of(type);
  file.file = path;
  while (*sizes) {
    file.shape[file.rank++] = strtol(sizes, &sizes, 10);
    if (*sizes == ',') sizes++;
  }
  return loopedge_read_array("", &file, array, error);
}

static int write_output(const char *folder, const loopedge_array *array) {
  char path[1024];
  size_t i, bytes = loopedge_element_bytes(array->dtype);
  FILE *file;
  sprintf(path, "%.800s/%.200s.bin", folder, array->name);
  file = fopen(path, "wb");
  if (!file) return -1;
  printf("%s %d", array->name, (int)array->dtype);
  for (i = 0; i < array->rank; i++) {
    printf(" %.0f", (double)array->shape[i]);
    bytes *= (size_t)array->shape[i];
  }
  printf("\n");
  fwrite(array->data, 1, bytes, file);
  return fclose(file);
}

static int run(loopedge_model *model, int count, char **words, loopedge_error *error) {
  loopedge_array inputs[MOST], outputs[MOST];
  size_t used = 0, i;
  int result = 0;
  for (i = 1; i < (size_t)count && !result; i++) {
    result = read_word(words[i], &inputs[used], error);
    used += !result;
  }
  if (!result) result = loopedge_run(model, inputs, used, outputs, error);
  for (i = 0; i < LOOPEDGE_MODEL.output_count && !result; i++) result = write_output(words[0], &outputs[i]);
  if (!result) loopedge_free_arrays(outputs, LOOPEDGE_MODEL.output_count);
  loopedge_free_arrays(inputs, used);
  return result;
}

static int generate(loopedge_model *model, int count, char **words, loopedge_error *error) {
  int64_t *ids = (int64_t *)calloc((size_t)count + (size_t)atol(words[0]) + 1, sizeof *ids), *found = ids + count;
  size_t i, written = 0;
  int result;
  for (i = 2; i < (size_t)count; i++) ids[i - 2] = atol(words[i]);
  result = loopedge_generate(model, ids, (size_t)count - 2, (size_t)atol(words[0]), atol(words[1]), NULL, NULL, found,
                             &written, error);
  for (i = 0; i < written && !result; i++) printf("%ld ", (long)found[i]);
  free(ids);
  return result;
}

static int print_sums(int count, char **words) {
  unsigned char bytes[1 << 16];
  char hex[65];
  size_t i;
  for (i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(7 * i);
  for (i = 0; i < (size_t)count; i++) {
    loopedge_sha256(bytes, (size_t)atol(words[i]), hex);
    printf("%s\n", hex);
  }
  return 0;
}

static int keeps_denormals(void) {
  volatile float tiny = 1e-39f;
  return tiny * 0.5f != 0;
}

int main(int count, char **words) {
  loopedge_options options = {LOOPEDGE_VERIFY_FULL, 1, NULL, 0};
  loopedge_error error = {""};
  loopedge_model *model;
  int place = 2, result;
  if (!strcmp(words[2], "sha256")) return print_sums(count - 3, words + 3);
  for (; strchr(words[place], '='); place++) {
    if (!strcmp(words[place], "verify=size")) options.verify = LOOPEDGE_VERIFY_SIZE;
    if (!strncmp(words[place], "form=", 5)) options.form = words[place] + 5;
    if (!strncmp(words[place], "seed=", 5)) options.seed = (uint64_t)atol(words[place] + 5);
  }
  model = loopedge_open(&LOOPEDGE_MODEL, words[1], &options, &error);
  result = model ? 0 : -1;
  if (!result && !strcmp(words[place], "run")) result = run(model, count - place - 1, words + place + 1, &error);
  if (!result && !strcmp(words[place], "generate")) {
    result = generate(model, count - place - 1, words + place + 1, &error);
  }
  loopedge_close(model);
  if (!keeps_denormals()) {
    strcpy(error.text, "the program's own denormals are zero behind the model");
    result = -1;
  }
  if (error.text[0]) fprintf(stderr, "%s\n", error.text);
  return result ? 1 : 0;
}
