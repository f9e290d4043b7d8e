/* loopedge.c: a bundle is opened, and run. See loopedge.h. */
#include "loopedge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge_internal.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#define FLUSH_AND_ZERO 0x8040u /* of MXCSR: results are flushed to zero, operands taken for zero */
#endif

#define API_VERSION 17 /* of ONNX Runtime 1.17: what these files call is in it */
#define LOG_FATAL 4    /* failures are returned, and said once */

unsigned le_flush_denormals(void) {
#ifdef FLUSH_AND_ZERO
  unsigned before = _mm_getcsr();
  _mm_setcsr(before | FLUSH_AND_ZERO);
  return before;
#else
  return 0;
#endif
}

void le_restore_denormals(unsigned before) {
#ifdef FLUSH_AND_ZERO
  _mm_setcsr(before);
#else
  (void)before;
#endif
}

/* ---- Opening ---- */

const char *loopedge_runtime_version(void) { return OrtGetApiBase()->GetVersionString(); }

static const loopedge_form *find_form(const loopedge_manifest *manifest, const char *id, loopedge_error *error) {
  size_t i;
  for (i = 0; i < manifest->form_count; i++) {
    if (!strcmp(manifest->forms[i].id, id)) return &manifest->forms[i];
  }
  le_fail(error, "form %s: the bundle of %s has none of this name, its own is %s", id, manifest->name, manifest->form);
  return NULL;
}

/* ONNX Runtime prints a line itself where the API is too new for it: so its version is asked first. */
static const OrtApi *find_api(const loopedge_form *form, loopedge_error *error) {
  const char *version = loopedge_runtime_version();
  int major = 0, minor = 0, needed = form->runtime_minor > API_VERSION ? form->runtime_minor : API_VERSION;
  sscanf(version, "%d.%d", &major, &minor);
  if (major < form->runtime_major || (major <= 1 && minor < needed)) {
    le_fail(error, "%s: needs ONNX Runtime 1.%d or later, this is %s", form->files[0].path, needed, version);
    return NULL;
  }
  return OrtGetApiBase()->GetApi(API_VERSION);
}

static OrtSessionOptions *session_options(loopedge_model *model, int threads, loopedge_error *error) {
  const OrtApi *api = model->api;
  const loopedge_form *form = model->form;
  OrtSessionOptions *options = NULL;
  size_t i;
  int result = le_check(api, api->CreateSessionOptions(&options), form->files[0].path, error);
  if (!result) result = le_check(api, api->SetSessionLogSeverityLevel(options, LOG_FATAL), "severity", error);
  if (!result && !form->memory_pattern) result = le_check(api, api->DisableMemPattern(options), "memory pattern", error);
  if (!result && threads > 0) {
    result = le_check(api, api->SetIntraOpNumThreads(options, threads), "threads", error);
    if (!result) result = le_check(api, api->SetInterOpNumThreads(options, 1), "threads", error);
  }
#ifdef FLUSH_AND_ZERO
  if (!result) { /* for the threads that the session starts */
    result = le_check(api, api->AddSessionConfigEntry(options, "session.set_denormal_as_zero", "1"), "denormals", error);
  }
#endif
  for (i = 0; i < form->config_count && !result; i++) {
    result = le_check(api, api->AddSessionConfigEntry(options, form->config[i].key, form->config[i].value),
                   form->config[i].key, error);
  }
  if (!result) return options;
  api->ReleaseSessionOptions(options);
  return NULL;
}

static int create_session(loopedge_model *model, const char *bundle, OrtSessionOptions *options,
                          loopedge_error *error) {
  const char *path = model->form->files[0].path;
  size_t length = strlen(bundle) + strlen(path) + 2;
  char *name = (char *)malloc(length);
  unsigned before;
  int result;
#ifdef _WIN32
  wchar_t *wide = (wchar_t *)malloc(length * sizeof *wide);
  const ORTCHAR_T *file = wide;
  if (!name || !wide) {
    free(name);
    free(wide);
    return le_no_memory(error);
  }
  sprintf(name, "%s/%s", bundle, path);
  mbstowcs(wide, name, length);
#else
  const ORTCHAR_T *file = name;
  if (!name) return le_no_memory(error);
  sprintf(name, "%s/%s", bundle, path);
#endif
  before = le_flush_denormals(); /* of a process's first session the runtime does so itself, and leaves it */
  result = le_check(model->api, model->api->CreateSession(model->env, file, options, &model->session), path, error);
  le_restore_denormals(before);
  free(name);
#ifdef _WIN32
  free(wide);
#endif
  return result;
}

typedef OrtStatus *(ORT_API_CALL *name_of)(const OrtSession *session, size_t index, OrtAllocator *allocator,
                                           char **name);

/* Read the names of inputs or outputs; what was read until it failed is freed by loopedge_close. */
static int read_names(loopedge_model *model, name_of ask, size_t count, char ***names, size_t *read,
                      loopedge_error *error) {
  OrtAllocator *allocator = NULL;
  int result = le_check(model->api, model->api->GetAllocatorWithDefaultOptions(&allocator), "allocator", error);
  *names = (char **)calloc(count ? count : 1, sizeof **names);
  if (!*names && !result) result = le_no_memory(error);
  for (*read = 0; *read < count && !result; (*read)++) {
    char *name = NULL;
    result = le_check(model->api, ask(model->session, *read, allocator, &name), model->form->files[0].path, error);
    if (result) break;
    (*names)[*read] = (char *)malloc(strlen(name) + 1);
    if ((*names)[*read]) strcpy((*names)[*read], name);
    else result = le_no_memory(error);
    allocator->Free(allocator, name);
  }
  return result;
}

static int start(loopedge_model *model, const char *bundle, int threads, loopedge_error *error) {
  const OrtApi *api = model->api;
  const char *path = model->form->files[0].path;
  size_t inputs = 0, outputs = 0;
  OrtSessionOptions *options;
  int result = le_check(api, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "loopedge", &model->env), path, error);
  if (result) return result;
  options = session_options(model, threads, error);
  if (!options) return -1;
  result = create_session(model, bundle, options, error);
  api->ReleaseSessionOptions(options);
  if (result) return result;
#if defined(__GLIBC__)
  malloc_trim(0); /* buffers of packing weights: 3 to 14 MiB that malloc would keep */
#endif
  result = le_check(api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &model->memory), path, error);
  if (!result) result = le_check(api, api->SessionGetInputCount(model->session, &inputs), path, error);
  if (!result) result = le_check(api, api->SessionGetOutputCount(model->session, &outputs), path, error);
  if (!result) {
    result = read_names(model, api->SessionGetInputName, inputs, &model->input_names, &model->input_count, error);
  }
  if (!result) {
    result = read_names(model, api->SessionGetOutputName, outputs, &model->output_names, &model->output_count, error);
  }
  return result;
}

loopedge_model *loopedge_open(const loopedge_manifest *manifest, const char *bundle, const loopedge_options *options,
                              loopedge_error *error) {
  static const loopedge_options usual = {LOOPEDGE_VERIFY_FULL, 0, NULL, 0};
  const loopedge_options *chosen = options ? options : &usual;
  const loopedge_form *form;
  const OrtApi *api;
  loopedge_model *model;
  size_t i;
  le_start_error(error);
  form = find_form(manifest, chosen->form ? chosen->form : manifest->form, error);
  api = form ? find_api(form, error) : NULL;
  if (!api) return NULL;
  if (chosen->verify == LOOPEDGE_VERIFY_FULL) {
    char *text = le_check_manifest(bundle, form->files, form->file_count, error);
    if (!text) return NULL;
    free(text);
  }
  for (i = 0; i < form->file_count; i++) {
    if (le_check_file(bundle, &form->files[i], chosen->verify, error)) return NULL;
  }
  model = (loopedge_model *)calloc(1, sizeof *model);
  if (!model) {
    le_no_memory(error);
    return NULL;
  }
  model->manifest = manifest;
  model->form = form;
  model->api = api;
  model->seed = chosen->seed;
  if (!start(model, bundle, chosen->threads, error)) return model;
  loopedge_close(model);
  return NULL;
}

void loopedge_close(loopedge_model *model) {
  size_t i;
  if (!model) return;
  for (i = 0; model->input_names && i < model->input_count; i++) free(model->input_names[i]);
  for (i = 0; model->output_names && i < model->output_count; i++) free(model->output_names[i]);
  free(model->input_names);
  free(model->output_names);
  model->api->ReleaseMemoryInfo(model->memory);
  model->api->ReleaseSession(model->session);
  model->api->ReleaseEnv(model->env);
  free(model);
}

/* ---- Running ---- */

OrtValue *le_wrap(const loopedge_model *model, const loopedge_array *array, loopedge_error *error) {
  OrtValue *value = NULL;
  size_t bytes = le_elements(array->shape, array->rank) * loopedge_element_bytes(array->dtype);
  le_check(model->api,
        model->api->CreateTensorWithDataAsOrtValue(model->memory, array->data, bytes, array->shape, array->rank,
                                                   (ONNXTensorElementDataType)array->dtype, &value),
        array->name, error);
  return value;
}

/* Copy what a session gave. */
static int copy_value(const loopedge_model *model, OrtValue *value, const char *name, loopedge_array *array,
                      loopedge_error *error) {
  const OrtApi *api = model->api;
  OrtTensorTypeAndShapeInfo *info = NULL;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  void *data = NULL;
  size_t bytes;
  int result = le_check(api, api->GetTensorTypeAndShape(value, &info), name, error);
  if (!result) result = le_check(api, api->GetTensorElementType(info, &type), name, error);
  if (!result) result = le_check(api, api->GetDimensionsCount(info, &array->rank), name, error);
  if (!result && array->rank > LOOPEDGE_RANK) {
    result = le_fail(error, "output %s: %.0f axes, the client takes %d", name, (double)array->rank, LOOPEDGE_RANK);
  }
  if (!result) result = le_check(api, api->GetDimensions(info, array->shape, array->rank), name, error);
  api->ReleaseTensorTypeAndShapeInfo(info);
  array->dtype = (loopedge_dtype)type;
  if (!result && !loopedge_element_bytes(array->dtype)) result = le_fail(error, "output %s is of another type", name);
  if (!result) result = le_check(api, api->GetTensorMutableData(value, &data), name, error);
  if (result) return result;
  bytes = le_elements(array->shape, array->rank) * loopedge_element_bytes(array->dtype);
  array->data = malloc(bytes ? bytes : 1);
  if (!array->data) return le_no_memory(error);
  memcpy(array->data, data, bytes);
  return 0;
}

/* Run arrays that stand in the order of the manifest's inputs. */
static int run(loopedge_model *model, const loopedge_array *arrays, loopedge_array *outputs, loopedge_error *error) {
  const loopedge_manifest *manifest = model->manifest;
  const OrtApi *api = model->api;
  OrtValue *feeds[LOOPEDGE_PORTS] = {NULL}, *found[LOOPEDGE_PORTS] = {NULL};
  size_t i;
  int result = 0;
  for (i = 0; i < model->input_count && !result; i++) {
    const loopedge_port *port = le_find_port(manifest->inputs, manifest->input_count, model->input_names[i]);
    if (!port) result = le_fail(error, "%s: has an input %s, manifest.json has none", model->form->id, model->input_names[i]);
    else if (!(feeds[i] = le_wrap(model, &arrays[port - manifest->inputs], error))) result = -1;
  }
  if (!result) {
    unsigned before = le_flush_denormals();
    result = le_check(api,
                   api->Run(model->session, NULL, (const char *const *)model->input_names,
                            (const OrtValue *const *)feeds, model->input_count,
                            (const char *const *)model->output_names, model->output_count, found),
                   model->form->files[0].path, error);
    le_restore_denormals(before);
  }
  for (i = 0; i < model->output_count && !result; i++) {
    const loopedge_port *port = le_find_port(manifest->outputs, manifest->output_count, model->output_names[i]);
    if (port) result = copy_value(model, found[i], port->name, &outputs[port - manifest->outputs], error);
  }
  for (i = 0; i < LOOPEDGE_PORTS; i++) {
    api->ReleaseValue(feeds[i]);
    api->ReleaseValue(found[i]);
  }
  if (result) loopedge_free_arrays(outputs, manifest->output_count);
  return result;
}

static int takes(const loopedge_model *model, const char *name) {
  size_t i;
  for (i = 0; i < model->input_count; i++) {
    if (!strcmp(model->input_names[i], name)) return 1;
  }
  return 0;
}

int loopedge_run(loopedge_model *model, const loopedge_array *inputs, size_t input_count, loopedge_array *outputs,
                 loopedge_error *error) {
  const loopedge_manifest *manifest = model->manifest;
  le_prepared feeds;
  size_t i;
  int result;
  le_start_error(error);
  memset(outputs, 0, manifest->output_count * sizeof *outputs);
  for (i = 0; i < manifest->output_count; i++) outputs[i].name = manifest->outputs[i].name;
  if (model->manifest->decodes) return le_fail(error, "form %s goes on from a cache: loopedge_generate runs it", model->form->id);
  if (model->input_count > LOOPEDGE_PORTS || model->output_count > LOOPEDGE_PORTS) {
    return le_fail(error, "%s: more than %d inputs or outputs", model->form->id, LOOPEDGE_PORTS);
  }
  result = le_prepare(manifest, inputs, input_count, model->seed, &feeds, error);
  for (i = 0; i < input_count && !result; i++) {
    if (!takes(model, inputs[i].name)) {
      result = le_fail(error, "input %s: form %s does not take it", inputs[i].name, model->form->id);
    }
  }
  if (!result) result = run(model, feeds.arrays, outputs, error);
  le_release(&feeds);
  return result;
}
