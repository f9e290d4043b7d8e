/* loopedge_internal.h: what the files of the client share; programs include loopedge.h alone. */
#ifndef LOOPEDGE_INTERNAL_H
#define LOOPEDGE_INTERNAL_H

#include "loopedge.h"
#include "onnxruntime_c_api.h"

#define LOOPEDGE_PORTS 32 /* inputs, or outputs, of a model that runs a window at once */

struct loopedge_model {
  const loopedge_manifest *manifest;
  const loopedge_form *form;
  const OrtApi *api;
  OrtEnv *env;
  OrtSession *session;
  OrtMemoryInfo *memory;
  uint64_t seed;
  char **input_names, **output_names;
  size_t input_count, output_count;
};

/* The inputs of a run: what the caller brought, and what was filled in. */
typedef struct le_prepared {
  loopedge_array arrays[LOOPEDGE_PORTS];
  void *owned[LOOPEDGE_PORTS]; /* of what was filled in */
} le_prepared;

/* loopedge_files.c: errors, files, arrays. Each that returns an int gives 0, or -1 with the error written. */
void le_start_error(loopedge_error *error);
int le_fail(loopedge_error *error, const char *format, ...);
int le_no_memory(loopedge_error *error);
int le_check(const OrtApi *api, OrtStatus *status, const char *what, loopedge_error *error);
int le_check_file(const char *bundle, const loopedge_file *file, loopedge_verify verify, loopedge_error *error);
char *le_check_manifest(const char *bundle, const loopedge_file *files, size_t count, loopedge_error *error);
const char *le_dtype_name(loopedge_dtype dtype);
size_t le_elements(const int64_t *shape, size_t rank);
double le_value_at(const loopedge_array *array, size_t i);

/* loopedge_inputs.c: what a model is fed. le_release frees what was filled in, whether le_prepare failed or not. */
const loopedge_port *le_find_port(const loopedge_port *ports, size_t count, const char *name);
const loopedge_port *le_input_of(const loopedge_manifest *manifest, loopedge_role role, size_t *place);
int le_check_loops(const loopedge_manifest *manifest, double loops, loopedge_error *error);
int le_prepare(const loopedge_manifest *manifest, const loopedge_array *inputs, size_t count, uint64_t seed,
               le_prepared *feeds, loopedge_error *error);
void le_release(le_prepared *feeds);

/* loopedge.c: numbers below the smallest normal one are zero for this thread, until it is put back. ONNX Runtime's softmax
   makes such numbers of masked positions, and products of them take a hundred times as long on processors of Intel. */
unsigned le_flush_denormals(void);
void le_restore_denormals(unsigned before);

/* loopedge.c: an array as a value of ONNX Runtime, which points into it. */
OrtValue *le_wrap(const loopedge_model *model, const loopedge_array *array, loopedge_error *error);

#endif
