/* loopedge.c: see loopedge.h. In order: errors, SHA-256, files, opening, inputs, running, writing on, comparing. */
#include "loopedge.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define API_VERSION 17    /* of ONNX Runtime 1.17: what this file calls is in it */
#define SCHEMA_VERSION 1  /* of manifest.json */
#define CHUNK 256         /* tokens of a prompt that are computed at once: activations grow with it */
#define MOST_DB 200.0     /* what is said of outputs without any error */
#define LOG_FATAL 4       /* failures are returned, and said once */
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

/* ---- Errors ---- */

static int fail(loopedge_error *error, const char *format, ...) {
  va_list arguments;
  char *place;
  if (!error) return -1;
  va_start(arguments, format);
  vsnprintf(error->text, sizeof error->text, format, arguments);
  va_end(arguments);
  for (place = error->text; *place; place++) {
    if (*place == '\n' || *place == '\r' || *place == '\t') *place = ' ';
  }
  return -1;
}

static void start_error(loopedge_error *error) {
  if (error) error->text[0] = '\0';
}

static int no_memory(loopedge_error *error) { return fail(error, "there is no memory left"); }

/* Return 0 where ONNX Runtime did what was asked, else say what it says. */
static int check(const OrtApi *api, OrtStatus *status, const char *what, loopedge_error *error) {
  if (!status) return 0;
  fail(error, "%s: %s", what, api->GetErrorMessage(status));
  api->ReleaseStatus(status);
  return -1;
}

/* ---- SHA-256 (FIPS 180-4) ---- */

typedef struct sha256 {
  uint32_t state[8];
  uint64_t bytes;
  unsigned char block[64];
} sha256;

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t value, int bits) { return (value >> bits) | (value << (32 - bits)); }

static void sha256_block(uint32_t state[8], const unsigned char *block) {
  uint32_t words[64], v[8], sum, choice, first, second;
  int i;
  for (i = 0; i < 16; i++) {
    words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
  }
  for (i = 16; i < 64; i++) {
    first = rotate(words[i - 15], 7) ^ rotate(words[i - 15], 18) ^ (words[i - 15] >> 3);
    second = rotate(words[i - 2], 17) ^ rotate(words[i - 2], 19) ^ (words[i - 2] >> 10);
    words[i] = words[i - 16] + first + words[i - 7] + second;
  }
  memcpy(v, state, sizeof v);
  for (i = 0; i < 64; i++) {
    sum = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
    choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
    first = v[7] + sum + choice + ROUND[i] + words[i];
    second = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
             ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += first;
    v[0] = first + second;
  }
  for (i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256_start(sha256 *hash) {
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(hash->state, start, sizeof start);
  hash->bytes = 0;
}

static void sha256_add(sha256 *hash, const unsigned char *bytes, size_t count) {
  size_t held = (size_t)(hash->bytes % 64), part;
  hash->bytes += count;
  if (held) {
    part = count < 64 - held ? count : 64 - held;
    memcpy(hash->block + held, bytes, part);
    if (held + part < 64) return;
    sha256_block(hash->state, hash->block);
    bytes += part;
    count -= part;
  }
  for (; count >= 64; bytes += 64, count -= 64) sha256_block(hash->state, bytes);
  if (count) memcpy(hash->block, bytes, count);
}

static void sha256_end(sha256 *hash, char hex[65]) {
  unsigned char tail[72] = {0x80};
  uint64_t bits = hash->bytes * 8;
  size_t zeros = (size_t)((119 - hash->bytes % 64) % 64);
  int i;
  for (i = 0; i < 8; i++) tail[1 + zeros + (size_t)i] = (unsigned char)(bits >> (56 - 8 * i));
  sha256_add(hash, tail, zeros + 9);
  for (i = 0; i < 8; i++) sprintf(hex + 8 * i, "%08lx", (unsigned long)hash->state[i]);
}

void loopedge_sha256(const void *bytes, size_t count, char hex[65]) {
  sha256 hash;
  sha256_start(&hash);
  sha256_add(&hash, (const unsigned char *)bytes, count);
  sha256_end(&hash, hex);
}

/* ---- Files ---- */

static FILE *open_file(const char *bundle, const char *path, loopedge_error *error) {
  char *name = (char *)malloc(strlen(bundle) + strlen(path) + 2);
  FILE *file;
  if (!name) {
    no_memory(error);
    return NULL;
  }
  sprintf(name, "%s/%s", bundle, path);
  file = fopen(name, "rb");
  if (!file) fail(error, "%s: cannot be read from %s: %s", path, bundle, strerror(errno));
  free(name);
  return file;
}

/* Return the content, with a zero behind it; NULL where it cannot be read. */
static char *read_file(const char *bundle, const char *path, size_t *count, loopedge_error *error) {
  FILE *file = open_file(bundle, path, error);
  char *content = NULL, *larger;
  size_t room = 0, read;
  *count = 0;
  if (!file) return NULL;
  do {
    room = room ? 2 * room : 1 << 16;
    larger = (char *)realloc(content, room + 1);
    if (!larger) {
      no_memory(error);
      break;
    }
    content = larger;
    read = fread(content + *count, 1, room - *count, file);
    *count += read;
    content[*count] = '\0';
  } while (*count == room);
  if (!larger || ferror(file)) {
    if (larger) fail(error, "%s: cannot be read: %s", path, strerror(errno));
    free(content);
    content = NULL;
  }
  fclose(file);
  return content;
}

static int check_bytes(const loopedge_file *file, uint64_t bytes, loopedge_error *error) {
  if (bytes == file->bytes) return 0;
  return fail(error, "%s: %.0f bytes, the bundle was made with %.0f: copy the file again", file->path, (double)bytes,
              (double)file->bytes);
}

static int check_file(const char *bundle, const loopedge_file *file, loopedge_verify verify, loopedge_error *error) {
  unsigned char *buffer;
  char hex[65];
  size_t read;
  sha256 hash;
  int result = 0;
  FILE *stream = open_file(bundle, file->path, error);
  if (!stream) return -1;
  if (verify == LOOPEDGE_VERIFY_SIZE) {
    if (fseek(stream, 0, SEEK_END) || ftell(stream) < 0) {
      result = fail(error, "%s: its size cannot be read: %s", file->path, strerror(errno));
    } else {
      result = check_bytes(file, (uint64_t)ftell(stream), error);
    }
    fclose(stream);
    return result;
  }
  buffer = (unsigned char *)malloc(1 << 16);
  if (!buffer) result = no_memory(error);
  sha256_start(&hash);
  while (buffer && (read = fread(buffer, 1, 1 << 16, stream)) > 0) sha256_add(&hash, buffer, read);
  if (buffer && ferror(stream)) result = fail(error, "%s: cannot be read: %s", file->path, strerror(errno));
  free(buffer);
  fclose(stream);
  if (!result) result = check_bytes(file, hash.bytes, error);
  if (result) return result;
  sha256_end(&hash, hex);
  if (strcmp(hex, file->sha256)) {
    return fail(error, "%s: SHA-256 is %s, the bundle was made with %s: the file was changed or damaged", file->path,
                hex, file->sha256);
  }
  return 0;
}

/* Return the text of a value behind a key of manifest.json; it is searched for, not parsed. */
static char *value_of(char *text, const char *key) {
  char *place = strstr(text, key);
  if (!place) return NULL;
  place += strlen(key);
  return place + strspn(place, " \t\r\n:\"");
}

/* Hold manifest.json against its own checksum, and against what this program was compiled with. */
static char *check_manifest(const char *bundle, const loopedge_file *files, size_t count, loopedge_error *error) {
  size_t length, i;
  char stated[65], hex[65], *checksum, *version, *text = read_file(bundle, "manifest.json", &length, error);
  if (!text) return NULL;
  version = value_of(text, "\"schema_version\"");
  checksum = value_of(text, "\"checksum\"");
  if (version && strtol(version, NULL, 10) > SCHEMA_VERSION) {
    fail(error, "manifest.json: schema %ld, this loopedge.c reads %d: take the one of the bundle",
         strtol(version, NULL, 10), SCHEMA_VERSION);
  } else if (!checksum || strspn(checksum, "0123456789abcdef") != 64) {
    fail(error, "manifest.json: there is no checksum in it: the file was changed or damaged");
  } else {
    memcpy(stated, checksum, 64);
    stated[64] = '\0';
    memset(checksum, '0', 64);
    loopedge_sha256(text, length, hex);
    for (i = 0; i < count && strstr(text, files[i].sha256); i++) {
    }
    if (strcmp(stated, hex)) {
      fail(error, "manifest.json: its checksum is %s, it says %s: the file was changed or damaged", hex, stated);
    } else if (i < count) {
      fail(error, "manifest.json: lists another %s than loopedge_model.h: compile with the header of this bundle",
           files[i].path);
    } else {
      return text;
    }
  }
  free(text);
  return NULL;
}

int loopedge_check_bundle(const loopedge_manifest *manifest, const char *bundle, loopedge_error *error) {
  static const char header[] = "c/loopedge_model.h";
  size_t i;
  char sha[65], *entry, *text = check_manifest(bundle, manifest->files, manifest->file_count, error);
  loopedge_file file = {header, 0, sha};
  int result = 0;
  if (!text) return -1;
  for (i = 0; i < manifest->file_count && !result; i++) {
    result = check_file(bundle, &manifest->files[i], LOOPEDGE_VERIFY_FULL, error);
  }
  entry = value_of(text, "\"c/loopedge_model.h\""); /* it cannot hold its own checksum */
  if (!result && entry) {
    char *bytes = value_of(entry, "\"bytes\""), *hex = value_of(entry, "\"sha256\"");
    if (bytes && hex) {
      file.bytes = (uint64_t)strtod(bytes, NULL);
      memcpy(sha, hex, 64);
      sha[64] = '\0';
      result = check_file(bundle, &file, LOOPEDGE_VERIFY_FULL, error);
    }
  }
  free(text);
  return result;
}

size_t loopedge_element_bytes(loopedge_dtype dtype) {
  switch (dtype) {
    case LOOPEDGE_UINT8:
    case LOOPEDGE_INT8:
    case LOOPEDGE_BOOL:
      return 1;
    case LOOPEDGE_FLOAT16:
      return 2;
    case LOOPEDGE_FLOAT32:
    case LOOPEDGE_INT32:
      return 4;
    case LOOPEDGE_INT64:
    case LOOPEDGE_FLOAT64:
      return 8;
  }
  return 0;
}

static const char *dtype_name(loopedge_dtype dtype) {
  switch (dtype) {
    case LOOPEDGE_FLOAT32: return "float32";
    case LOOPEDGE_UINT8: return "uint8";
    case LOOPEDGE_INT8: return "int8";
    case LOOPEDGE_INT32: return "int32";
    case LOOPEDGE_INT64: return "int64";
    case LOOPEDGE_BOOL: return "bool";
    case LOOPEDGE_FLOAT16: return "float16";
    case LOOPEDGE_FLOAT64: return "float64";
  }
  return "another type";
}

static size_t elements(const int64_t *shape, size_t rank) {
  size_t i, count = 1;
  for (i = 0; i < rank; i++) count *= (size_t)shape[i];
  return count;
}

int loopedge_read_array(const char *bundle, const loopedge_array_file *file, loopedge_array *array,
                        loopedge_error *error) {
  size_t count, wanted = elements(file->shape, file->rank) * loopedge_element_bytes(file->dtype);
  char *content = read_file(bundle, file->file, &count, error);
  if (!content) return -1;
  if (count != wanted) {
    free(content);
    return fail(error, "%s: %.0f bytes, %.0f are needed: copy the file again", file->file, (double)count,
                (double)wanted);
  }
  array->name = file->name;
  array->dtype = file->dtype;
  array->rank = file->rank;
  memcpy(array->shape, file->shape, sizeof array->shape);
  array->data = content;
  return 0;
}

void loopedge_free_arrays(loopedge_array *arrays, size_t count) {
  size_t i;
  for (i = 0; i < count; i++) {
    free(arrays[i].data);
    arrays[i].data = NULL;
  }
}

/* ---- Opening ---- */

const char *loopedge_runtime_version(void) { return OrtGetApiBase()->GetVersionString(); }

static const loopedge_form *find_form(const loopedge_manifest *manifest, const char *id, loopedge_error *error) {
  size_t i;
  for (i = 0; i < manifest->form_count; i++) {
    if (!strcmp(manifest->forms[i].id, id)) return &manifest->forms[i];
  }
  fail(error, "form %s: the bundle of %s has none of this name, its own is %s", id, manifest->name, manifest->form);
  return NULL;
}

/* ONNX Runtime prints a line itself where the API is too new for it: so its version is asked first. */
static const OrtApi *find_api(const loopedge_form *form, loopedge_error *error) {
  const char *version = loopedge_runtime_version();
  int major = 0, minor = 0, needed = form->runtime_minor > API_VERSION ? form->runtime_minor : API_VERSION;
  sscanf(version, "%d.%d", &major, &minor);
  if (major < form->runtime_major || (major <= 1 && minor < needed)) {
    fail(error, "%s: needs ONNX Runtime 1.%d or later, this is %s", form->files[0].path, needed, version);
    return NULL;
  }
  return OrtGetApiBase()->GetApi(API_VERSION);
}

static OrtSessionOptions *session_options(loopedge_model *model, int threads, loopedge_error *error) {
  const OrtApi *api = model->api;
  const loopedge_form *form = model->form;
  OrtSessionOptions *options = NULL;
  size_t i;
  int result = check(api, api->CreateSessionOptions(&options), form->files[0].path, error);
  if (!result) result = check(api, api->SetSessionLogSeverityLevel(options, LOG_FATAL), "severity", error);
  if (!result && !form->memory_pattern) result = check(api, api->DisableMemPattern(options), "memory pattern", error);
  if (!result && threads > 0) {
    result = check(api, api->SetIntraOpNumThreads(options, threads), "threads", error);
    if (!result) result = check(api, api->SetInterOpNumThreads(options, 1), "threads", error);
  }
  for (i = 0; i < form->config_count && !result; i++) {
    result = check(api, api->AddSessionConfigEntry(options, form->config[i].key, form->config[i].value),
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
  int result;
#ifdef _WIN32
  wchar_t *wide = (wchar_t *)malloc(length * sizeof *wide);
  const ORTCHAR_T *file = wide;
  if (!name || !wide) {
    free(name);
    free(wide);
    return no_memory(error);
  }
  sprintf(name, "%s/%s", bundle, path);
  mbstowcs(wide, name, length);
#else
  const ORTCHAR_T *file = name;
  if (!name) return no_memory(error);
  sprintf(name, "%s/%s", bundle, path);
#endif
  result = check(model->api, model->api->CreateSession(model->env, file, options, &model->session), path, error);
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
  int result = check(model->api, model->api->GetAllocatorWithDefaultOptions(&allocator), "allocator", error);
  *names = (char **)calloc(count ? count : 1, sizeof **names);
  if (!*names && !result) result = no_memory(error);
  for (*read = 0; *read < count && !result; (*read)++) {
    char *name = NULL;
    result = check(model->api, ask(model->session, *read, allocator, &name), model->form->files[0].path, error);
    if (result) break;
    (*names)[*read] = (char *)malloc(strlen(name) + 1);
    if ((*names)[*read]) strcpy((*names)[*read], name);
    else result = no_memory(error);
    allocator->Free(allocator, name);
  }
  return result;
}

static int start(loopedge_model *model, const char *bundle, int threads, loopedge_error *error) {
  const OrtApi *api = model->api;
  const char *path = model->form->files[0].path;
  size_t inputs = 0, outputs = 0;
  OrtSessionOptions *options;
  int result = check(api, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "loopedge", &model->env), path, error);
  if (result) return result;
  options = session_options(model, threads, error);
  if (!options) return -1;
  result = create_session(model, bundle, options, error);
  api->ReleaseSessionOptions(options);
  if (result) return result;
#if defined(__GLIBC__)
  malloc_trim(0); /* buffers of packing weights: 3 to 14 MiB that malloc would keep */
#endif
  result = check(api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &model->memory), path, error);
  if (!result) result = check(api, api->SessionGetInputCount(model->session, &inputs), path, error);
  if (!result) result = check(api, api->SessionGetOutputCount(model->session, &outputs), path, error);
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
  start_error(error);
  form = find_form(manifest, chosen->form ? chosen->form : manifest->form, error);
  api = form ? find_api(form, error) : NULL;
  if (!api) return NULL;
  if (chosen->verify == LOOPEDGE_VERIFY_FULL) {
    char *text = check_manifest(bundle, form->files, form->file_count, error);
    if (!text) return NULL;
    free(text);
  }
  for (i = 0; i < form->file_count; i++) {
    if (check_file(bundle, &form->files[i], chosen->verify, error)) return NULL;
  }
  model = (loopedge_model *)calloc(1, sizeof *model);
  if (!model) {
    no_memory(error);
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

/* ---- Inputs ---- */

/* The inputs of a run: what the caller brought, and what was filled in. */
typedef struct prepared {
  loopedge_array arrays[LOOPEDGE_PORTS];
  void *owned[LOOPEDGE_PORTS]; /* of what was filled in */
} prepared;

static const loopedge_port *find_port(const loopedge_port *ports, size_t count, const char *name) {
  size_t i;
  for (i = 0; i < count; i++) {
    if (!strcmp(ports[i].name, name)) return &ports[i];
  }
  return NULL;
}

static int takes(const loopedge_model *model, const char *name) {
  size_t i;
  for (i = 0; i < model->input_count; i++) {
    if (!strcmp(model->input_names[i], name)) return 1;
  }
  return 0;
}

static const loopedge_port *input_of(const loopedge_manifest *manifest, loopedge_role role, size_t *place) {
  size_t i;
  *place = 0;
  for (i = 0; i < manifest->input_count; i++) {
    if (manifest->inputs[i].role == role) {
      *place = i;
      return &manifest->inputs[i];
    }
  }
  return NULL;
}

/* Write the names of the inputs, for messages. */
static const char *listed(const loopedge_manifest *manifest, char text[256]) {
  size_t i, used = 0;
  text[0] = '\0';
  for (i = 0; i < manifest->input_count && used + 64 < 256; i++) {
    used += (size_t)snprintf(text + used, 256 - used, "%s%.60s", i ? ", " : "", manifest->inputs[i].name);
  }
  return text;
}

static double value_at(const loopedge_array *array, size_t i) {
  switch (array->dtype) {
    case LOOPEDGE_FLOAT32: return ((const float *)array->data)[i];
    case LOOPEDGE_FLOAT64: return ((const double *)array->data)[i];
    case LOOPEDGE_INT64: return (double)((const int64_t *)array->data)[i];
    case LOOPEDGE_INT32: return ((const int32_t *)array->data)[i];
    case LOOPEDGE_INT8: return ((const int8_t *)array->data)[i];
    case LOOPEDGE_UINT8:
    case LOOPEDGE_BOOL: return ((const uint8_t *)array->data)[i];
    case LOOPEDGE_FLOAT16: {
      unsigned half = ((const uint16_t *)array->data)[i], exponent = half >> 10 & 31, rest = half & 1023;
      double value = exponent ? ldexp(1024.0 + rest, (int)exponent - 25) : ldexp(rest, -24);
      if (exponent == 31) value = rest ? NAN : HUGE_VAL;
      return half >> 15 ? -value : value;
    }
  }
  return NAN;
}

/* Say where an element stands, counted from 1. */
static const char *place_of(const loopedge_array *array, size_t i, char text[96]) {
  size_t last = array->rank > 2 ? (size_t)array->shape[2] : 1, length = array->rank > 1 ? (size_t)array->shape[1] : 1;
  if (array->rank > 2) {
    sprintf(text, "sample %.0f, position %.0f, column %.0f", (double)(i / (length * last) + 1),
            (double)(i / last % length + 1), (double)(i % last + 1));
  } else {
    sprintf(text, "sample %.0f, position %.0f", (double)(i / length + 1), (double)(i % length + 1));
  }
  return text;
}

static int check_shape(const loopedge_port *port, const loopedge_array *array, loopedge_error *error) {
  size_t i;
  if (array->dtype != port->dtype) {
    return fail(error, "input %s: the type is %s, the model takes %s", port->name, dtype_name(array->dtype),
                dtype_name(port->dtype));
  }
  if (array->rank != port->rank) {
    return fail(error, "input %s: %.0f axes, the model takes %.0f", port->name, (double)array->rank,
                (double)port->rank);
  }
  for (i = 0; i < port->rank; i++) {
    if (array->shape[i] < 1 || (port->shape[i] >= 0 && array->shape[i] != port->shape[i])) {
      char allowed[32] = "at least 1";
      if (port->shape[i] >= 0) sprintf(allowed, "%.0f", (double)port->shape[i]);
      return fail(error, "input %s: axis %.0f has size %.0f, the model takes %s", port->name, (double)(i + 1),
                  (double)array->shape[i], allowed);
    }
  }
  if (!array->data) return fail(error, "input %s: there is no data", port->name);
  return 0;
}

static int check_values(const loopedge_manifest *manifest, const loopedge_port *port, const loopedge_array *array,
                        loopedge_error *error) {
  size_t i, count = elements(array->shape, array->rank);
  char place[96];
  for (i = 0; i < count; i++) {
    double value = value_at(array, i);
    if (array->dtype == LOOPEDGE_FLOAT32 || array->dtype == LOOPEDGE_FLOAT64 || array->dtype == LOOPEDGE_FLOAT16) {
      if (!port->any_value && (isinf(value) || (isnan(value) && !manifest->missing_values))) {
        return fail(error, "input %s: %s is %s, the model takes finite numbers%s", port->name,
                    place_of(array, i, place), isnan(value) ? "NaN" : "infinite",
                    manifest->missing_values ? " and NaN for missing values" : "");
      }
    } else if (port->role == LOOPEDGE_IDS && port->vocabulary && (value < 0 || value >= (double)port->vocabulary)) {
      return fail(error, "input %s: %s is %.0f, the model takes ids from 0 to %.0f", port->name,
                  place_of(array, i, place), value, (double)port->vocabulary - 1);
    } else if (port->role == LOOPEDGE_MASK && value != 0 && value != 1) {
      return fail(error, "input %s: %s is %.0f, a mask holds 1 where a position is kept and 0 where it is not",
                  port->name, place_of(array, i, place), value);
    }
  }
  return 0;
}

static int check_length(const loopedge_port *port, int64_t length, loopedge_error *error) {
  int64_t least = port->exact_length ? port->exact_length : port->min_length;
  int64_t most = port->exact_length ? port->exact_length : port->max_length;
  if (least && length < least) {
    return fail(error, "input %s: %.0f positions, the model takes %s%.0f", port->name, (double)length,
                port->exact_length ? "" : "at least ", (double)least);
  }
  if (most && length > most) {
    return fail(error, "input %s: %.0f positions, the model takes %s%.0f", port->name, (double)length,
                port->exact_length ? "" : "at most ", (double)most);
  }
  return 0;
}

static void *own(prepared *feeds, size_t place, size_t count, size_t size) {
  void *data = calloc(count ? count : 1, size);
  free(feeds->owned[place]);
  feeds->owned[place] = data;
  return data;
}

/* Refuse a loop count that the model cannot run; warn of one that training never saw. */
static int check_loops(const loopedge_manifest *manifest, double loops, loopedge_error *error) {
  if (loops < 1 && !manifest->most_loops) return fail(error, "loops: %.0f, at least 1 is needed", loops);
  if (loops < 1 || (manifest->most_loops && loops > (double)manifest->most_loops)) {
    return fail(error, "loops: %.0f, the model runs 1 to %.0f", loops, (double)manifest->most_loops);
  }
  if (loops < (double)manifest->least_trained || loops > (double)manifest->most_trained) {
    fail(error, "warning: loops: %.0f, the model was trained on %.0f to %.0f", loops, (double)manifest->least_trained,
         (double)manifest->most_trained);
  }
  return 0;
}

/* Add one number where the caller brought none; hold what was brought to what training saw. */
static int fill_loops(const loopedge_manifest *manifest, prepared *feeds, loopedge_error *error) {
  size_t place;
  const loopedge_port *port = input_of(manifest, LOOPEDGE_LOOPS, &place);
  loopedge_array *array;
  double loops;
  if (!port) return 0;
  array = &feeds->arrays[place];
  if (!array->data) {
    if (!manifest->default_loops) return fail(error, "input %s is missing: the bundle knows no default", port->name);
    array->data = own(feeds, place, 1, sizeof(int64_t));
    if (!array->data) return no_memory(error);
    if (port->dtype == LOOPEDGE_INT32) *(int32_t *)array->data = (int32_t)manifest->default_loops;
    else *(int64_t *)array->data = manifest->default_loops;
    array->name = port->name;
    array->dtype = port->dtype;
    array->rank = port->rank;
    array->shape[0] = 1;
  }
  loops = value_at(array, 0);
  return check_loops(manifest, loops, error);
}

static int fill_tolerance(const loopedge_manifest *manifest, prepared *feeds, loopedge_error *error) {
  size_t place;
  const loopedge_port *port = input_of(manifest, LOOPEDGE_TOLERANCE, &place);
  loopedge_array *array;
  if (!port) return 0;
  array = &feeds->arrays[place];
  if (!array->data) {
    array->data = own(feeds, place, 1, sizeof(float));
    if (!array->data) return no_memory(error);
    *(float *)array->data = (float)manifest->default_tolerance;
    array->name = port->name;
    array->dtype = LOOPEDGE_FLOAT32;
    array->rank = port->rank;
    array->shape[0] = 1;
  }
  if (!(value_at(array, 0) >= manifest->least_tolerance)) {
    return fail(error, "input %s: %g, at least %g is needed", port->name, value_at(array, 0),
                manifest->least_tolerance);
  }
  return 0;
}

/* Draw a normal number: splitmix64 twice, and Box and Muller. */
static double normal(uint64_t *state) {
  double uniform[2];
  int i;
  for (i = 0; i < 2; i++) {
    uint64_t mixed = (*state += 0x9e3779b97f4a7c15u);
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    uniform[i] = ((double)((mixed ^ mixed >> 31) >> 11) + 0.5) / 9007199254740992.0;
  }
  return sqrt(-2 * log(uniform[0])) * cos(6.283185307179586 * uniform[1]);
}

/* Draw the noise that was left out, in the sizes of the input that is there. */
static int fill_noise(const loopedge_manifest *manifest, prepared *feeds, const loopedge_array *sized, uint64_t seed,
                      loopedge_error *error) {
  size_t i, k, count;
  for (i = 0; i < manifest->input_count; i++) {
    const loopedge_port *port = &manifest->inputs[i];
    loopedge_array *array = &feeds->arrays[i];
    if (port->role != LOOPEDGE_NOISE || array->data) continue;
    for (k = 0; k < port->rank; k++) {
      const char *axis = port->axes[k];
      array->shape[k] = port->shape[k];
      if (axis && !strcmp(axis, "batch")) array->shape[k] = sized->shape[0];
      if (axis && !strcmp(axis, "sequence") && sized->rank > 1) array->shape[k] = sized->shape[1];
      if (array->shape[k] < 1) return fail(error, "input %s is missing, and its size is not known", port->name);
    }
    if (port->dtype != LOOPEDGE_FLOAT32) return fail(error, "input %s is missing", port->name);
    array->name = port->name;
    array->dtype = port->dtype;
    array->rank = port->rank;
    count = elements(array->shape, array->rank);
    array->data = own(feeds, i, count, sizeof(float));
    if (!array->data) return no_memory(error);
    for (k = 0; k < count; k++) ((float *)array->data)[k] = (float)(port->deviation * normal(&seed));
  }
  return 0;
}

/* Add the mask that the model takes and its inputs lack: every position is kept. */
static int fill_mask(const loopedge_manifest *manifest, prepared *feeds, const loopedge_array *masked,
                     loopedge_error *error) {
  size_t place, i, count;
  const loopedge_port *port = input_of(manifest, LOOPEDGE_MASK, &place);
  loopedge_array *array;
  if (!port || masked->rank < 2) return 0;
  array = &feeds->arrays[place];
  if (array->data) {
    if (array->shape[0] == masked->shape[0] && array->shape[1] == masked->shape[1]) return 0;
    return fail(error, "input %s: %.0f x %.0f, the positions that it masks are %.0f x %.0f", port->name,
                (double)array->shape[0], (double)array->shape[1], (double)masked->shape[0],
                (double)masked->shape[1]);
  }
  if (port->dtype != LOOPEDGE_INT64) return fail(error, "input %s is missing", port->name);
  count = (size_t)masked->shape[0] * (size_t)masked->shape[1];
  array->data = own(feeds, place, count, sizeof(int64_t));
  if (!array->data) return no_memory(error);
  for (i = 0; i < count; i++) ((int64_t *)array->data)[i] = 1;
  array->name = port->name;
  array->dtype = port->dtype;
  array->rank = 2;
  array->shape[0] = masked->shape[0];
  array->shape[1] = masked->shape[1];
  return 0;
}

/* Refuse windows that training never saw: shorter ones, and ones whose last position is masked. */
static int check_windows(const loopedge_manifest *manifest, const loopedge_array *mask, loopedge_error *error) {
  size_t row, i, length = (size_t)mask->shape[1];
  for (row = 0; row < (size_t)mask->shape[0]; row++) {
    double kept = 0;
    for (i = 0; i < length; i++) kept += value_at(mask, row * length + i) != 0;
    if (value_at(mask, row * length + length - 1) == 0) {
      return fail(error, "input %s: sample %.0f masks its last position, the model answers at that one: pad on the left",
                  mask->name, (double)(row + 1));
    }
    if (kept < (double)manifest->min_context) {
      return fail(error, "input %s: sample %.0f has %.0f table rows, the model was trained on at least %.0f", mask->name,
                  (double)(row + 1), kept, (double)manifest->min_context);
    }
  }
  return 0;
}

/* Pad windows on the left to the context, with the mean of training, and mask what was added. */
static int pad(const loopedge_manifest *manifest, prepared *feeds, size_t values_place, size_t mask_place,
               loopedge_error *error) {
  loopedge_array *values = &feeds->arrays[values_place], *mask = &feeds->arrays[mask_place];
  size_t batch = (size_t)values->shape[0], length = (size_t)values->shape[1], columns = (size_t)values->shape[2];
  size_t context = (size_t)manifest->context, added = context - length, size = loopedge_element_bytes(values->dtype);
  size_t mask_size = loopedge_element_bytes(mask->dtype), row, i;
  char *longer = (char *)calloc(batch * context * columns, size);
  char *kept = (char *)calloc(batch * context, mask_size);
  if (!longer || !kept) {
    free(longer);
    free(kept);
    return no_memory(error);
  }
  for (row = 0; row < batch; row++) {
    char *to = longer + row * context * columns * size;
    for (i = 0; i < added * columns; i++) {
      if (values->dtype == LOOPEDGE_FLOAT64) ((double *)(void *)to)[i] = manifest->pad[i % columns];
      else ((float *)(void *)to)[i] = (float)manifest->pad[i % columns];
    }
    memcpy(to + added * columns * size, (const char *)values->data + row * length * columns * size,
           length * columns * size);
    memcpy(kept + (row * context + added) * mask_size, (const char *)mask->data + row * length * mask_size,
           length * mask_size);
  }
  free(feeds->owned[values_place]);
  free(feeds->owned[mask_place]);
  values->data = feeds->owned[values_place] = longer;
  mask->data = feeds->owned[mask_place] = kept;
  values->shape[1] = mask->shape[1] = manifest->context;
  return 0;
}

static int take_windows(const loopedge_manifest *manifest, prepared *feeds, size_t place, loopedge_error *error) {
  size_t mask_place;
  const loopedge_array *values = &feeds->arrays[place];
  const loopedge_port *mask = input_of(manifest, LOOPEDGE_MASK, &mask_place);
  if (values->rank != 3 || !manifest->context) return 0;
  if (mask) {
    if (check_windows(manifest, &feeds->arrays[mask_place], error)) return -1;
    if (values->shape[1] >= manifest->context || values->shape[2] != (int64_t)manifest->pad_count) return 0;
    if (values->dtype != LOOPEDGE_FLOAT32 && values->dtype != LOOPEDGE_FLOAT64) return 0;
    return pad(manifest, feeds, place, mask_place, error);
  }
  if (values->shape[1] >= manifest->context) return 0;
  return fail(error, "input %s: %.0f positions, the model was trained on windows of %.0f table rows", values->name,
              (double)values->shape[1], (double)manifest->context);
}

/* Sort what the caller brought by the inputs of the model, and check each. */
static int sort_inputs(const loopedge_manifest *manifest, const loopedge_array *inputs, size_t count,
                       prepared *feeds, loopedge_error *error) {
  size_t i;
  char names[256];
  for (i = 0; i < count; i++) {
    const loopedge_port *port = find_port(manifest->inputs, manifest->input_count, inputs[i].name);
    if (!port) return fail(error, "no input %s: the model takes %s", inputs[i].name, listed(manifest, names));
    if (check_shape(port, &inputs[i], error) || check_values(manifest, port, &inputs[i], error)) return -1;
    feeds->arrays[port - manifest->inputs] = inputs[i];
  }
  return 0;
}

/* Check what the caller brought, and fill in the rest. */
static int prepare(const loopedge_manifest *manifest, const loopedge_array *inputs, size_t count, uint64_t seed,
                   prepared *feeds, loopedge_error *error) {
  size_t i, place = 0;
  char names[256];
  int padded;
  const loopedge_port *port = input_of(manifest, LOOPEDGE_VALUES, &place);
  memset(feeds, 0, sizeof *feeds);
  if (manifest->input_count > LOOPEDGE_PORTS) {
    return fail(error, "the model has %.0f inputs, loopedge.c takes %d", (double)manifest->input_count,
                LOOPEDGE_PORTS);
  }
  if (sort_inputs(manifest, inputs, count, feeds, error)) return -1;
  if (!port) port = input_of(manifest, LOOPEDGE_IDS, &place);
  if (port && feeds->arrays[place].data) {
    const loopedge_array *array = &feeds->arrays[place];
    size_t mask_place;
    padded = manifest->context && input_of(manifest, LOOPEDGE_MASK, &mask_place) != NULL;
    if (!padded && array->rank > 1 && check_length(port, array->shape[1], error)) return -1;
    if (fill_mask(manifest, feeds, array, error) || take_windows(manifest, feeds, place, error)) return -1;
    if (padded && array->rank > 1 && check_length(port, array->shape[1], error)) return -1;
    if (fill_noise(manifest, feeds, array, seed, error)) return -1;
  }
  if (fill_loops(manifest, feeds, error) || fill_tolerance(manifest, feeds, error)) return -1;
  for (i = 0; i < manifest->input_count; i++) {
    if (!feeds->arrays[i].data) {
      return fail(error, "input %s is missing: the model takes %s", manifest->inputs[i].name,
                  listed(manifest, names));
    }
  }
  return 0;
}

static void release(prepared *feeds) {
  size_t i;
  for (i = 0; i < LOOPEDGE_PORTS; i++) free(feeds->owned[i]);
}

/* ---- Running ---- */

static OrtValue *wrap(const loopedge_model *model, const loopedge_array *array, loopedge_error *error) {
  OrtValue *value = NULL;
  size_t bytes = elements(array->shape, array->rank) * loopedge_element_bytes(array->dtype);
  check(model->api,
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
  int result = check(api, api->GetTensorTypeAndShape(value, &info), name, error);
  if (!result) result = check(api, api->GetTensorElementType(info, &type), name, error);
  if (!result) result = check(api, api->GetDimensionsCount(info, &array->rank), name, error);
  if (!result && array->rank > LOOPEDGE_RANK) {
    result = fail(error, "output %s: %.0f axes, loopedge.c takes %d", name, (double)array->rank, LOOPEDGE_RANK);
  }
  if (!result) result = check(api, api->GetDimensions(info, array->shape, array->rank), name, error);
  api->ReleaseTensorTypeAndShapeInfo(info);
  array->dtype = (loopedge_dtype)type;
  if (!result && !loopedge_element_bytes(array->dtype)) result = fail(error, "output %s is of another type", name);
  if (!result) result = check(api, api->GetTensorMutableData(value, &data), name, error);
  if (result) return result;
  bytes = elements(array->shape, array->rank) * loopedge_element_bytes(array->dtype);
  array->data = malloc(bytes ? bytes : 1);
  if (!array->data) return no_memory(error);
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
    const loopedge_port *port = find_port(manifest->inputs, manifest->input_count, model->input_names[i]);
    if (!port) result = fail(error, "%s: has an input %s, manifest.json has none", model->form->id, model->input_names[i]);
    else if (!(feeds[i] = wrap(model, &arrays[port - manifest->inputs], error))) result = -1;
  }
  if (!result) {
    result = check(api,
                   api->Run(model->session, NULL, (const char *const *)model->input_names,
                            (const OrtValue *const *)feeds, model->input_count,
                            (const char *const *)model->output_names, model->output_count, found),
                   model->form->files[0].path, error);
  }
  for (i = 0; i < model->output_count && !result; i++) {
    const loopedge_port *port = find_port(manifest->outputs, manifest->output_count, model->output_names[i]);
    if (port) result = copy_value(model, found[i], port->name, &outputs[port - manifest->outputs], error);
  }
  for (i = 0; i < LOOPEDGE_PORTS; i++) {
    api->ReleaseValue(feeds[i]);
    api->ReleaseValue(found[i]);
  }
  if (result) loopedge_free_arrays(outputs, manifest->output_count);
  return result;
}

int loopedge_run(loopedge_model *model, const loopedge_array *inputs, size_t input_count, loopedge_array *outputs,
                 loopedge_error *error) {
  const loopedge_manifest *manifest = model->manifest;
  prepared feeds;
  size_t i;
  int result;
  start_error(error);
  memset(outputs, 0, manifest->output_count * sizeof *outputs);
  for (i = 0; i < manifest->output_count; i++) outputs[i].name = manifest->outputs[i].name;
  if (model->manifest->decodes) return fail(error, "form %s goes on from a cache: loopedge_generate runs it", model->form->id);
  if (model->input_count > LOOPEDGE_PORTS || model->output_count > LOOPEDGE_PORTS) {
    return fail(error, "%s: more than %d inputs or outputs", model->form->id, LOOPEDGE_PORTS);
  }
  result = prepare(manifest, inputs, input_count, model->seed, &feeds, error);
  for (i = 0; i < input_count && !result; i++) {
    if (!takes(model, inputs[i].name)) {
      result = fail(error, "input %s: form %s does not take it", inputs[i].name, model->form->id);
    }
  }
  if (!result) result = run(model, feeds.arrays, outputs, error);
  release(&feeds);
  return result;
}

/* ---- Writing on ---- */

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
  int result = check(api,
                     output ? api->SessionGetOutputTypeInfo(model->session, place, &info)
                            : api->SessionGetInputTypeInfo(model->session, place, &info),
                     name, error);
  memset(array, 0, sizeof *array);
  array->name = name;
  if (!result) result = check(api, api->CastTypeInfoToTensorInfo(info, &tensor), name, error);
  if (!result && !tensor) result = fail(error, "%s is no tensor", name);
  if (!result) result = check(api, api->GetTensorElementType(tensor, &type), name, error);
  if (!result) result = check(api, api->GetDimensionsCount(tensor, &array->rank), name, error);
  if (!result && array->rank > LOOPEDGE_RANK) result = fail(error, "%s: %.0f axes", name, (double)array->rank);
  if (!result) result = check(api, api->GetDimensions(tensor, array->shape, array->rank), name, error);
  api->ReleaseTypeInfo(info);
  array->dtype = (loopedge_dtype)type;
  return result;
}

/* Say which size the axes of a slot have: (loops, [inner loops,] batch, kv heads, positions, head size), in the unrolled
 * form (batch, kv heads, positions, head size). */
static int size_slot(const text *of, loopedge_array *array, int64_t loops, loopedge_error *error) {
  const loopedge_manifest *manifest = of->model->manifest;
  const loopedge_port *port = find_port(manifest->inputs, manifest->input_count, array->name);
  size_t i;
  if (!manifest->dynamic_loops && port && port->rank == array->rank && port->shape[0] > 0) loops = port->shape[0];
  if (array->rank < 4) return fail(error, "%s: %.0f axes are none of a cache", array->name, (double)array->rank);
  for (i = 0; i < array->rank; i++) {
    int64_t wanted = i == array->rank - 4 ? 1 : i == array->rank - 2 ? of->context : i == 0 ? loops : 0;
    if (array->shape[i] < 0) array->shape[i] = wanted;
    else if (i == 0 && array->rank > 4 && loops != manifest->default_loops && array->shape[i] != loops) {
      return fail(error, "%s runs %.0f loops, %.0f were asked for", of->model->form->id, (double)array->shape[i],
                  (double)loops);
    }
    if (array->shape[i] < 1) return fail(error, "%s: the size of axis %.0f is not known", array->name, (double)(i + 1));
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
  return wrap(of->model, &array, error);
}

static int bind_pasts(text *of, int64_t loops, loopedge_error *error) {
  const loopedge_model *model = of->model;
  const OrtApi *api = model->api;
  loopedge_array array;
  size_t i;
  for (i = 0; i < model->input_count; i++) {
    const char *name = model->input_names[i];
    if (!strcmp(name, "input_ids") || !strcmp(name, "lengths")) continue;
    if (strncmp(name, "past.", 5)) return fail(error, "%s: input %s is none of a cache", model->form->id, name);
    if (read_type(model, 0, i, &array, error) || size_slot(of, &array, loops, error)) return -1;
    of->slots[i].buffer = calloc(elements(array.shape, array.rank), loopedge_element_bytes(array.dtype));
    if (!of->slots[i].buffer) return fail(error, "there is no memory for a cache of %.0f positions", (double)of->context);
    array.data = of->slots[i].buffer;
    of->slots[i].value = wrap(model, &array, error);
    if (!of->slots[i].value) return -1;
    if (check(api, api->BindInput(of->binding, name, of->slots[i].value), name, error)) return -1;
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
      if (array.dtype != LOOPEDGE_FLOAT32 || of->vocabulary < 1) return fail(error, "logits: float32 is needed");
      of->logits = (float *)calloc((size_t)of->vocabulary, sizeof(float));
      if (!of->logits) return no_memory(error);
      of->logits_value = wrap_axes(of, name, LOOPEDGE_FLOAT32, of->logits, 3, 1, 1, of->vocabulary, error);
      if (!of->logits_value) return -1;
      status = api->BindOutput(of->binding, name, of->logits_value);
    } else if (!strncmp(name, "present.", 8)) {
      if (!past_of(model, name, &place)) return fail(error, "%s: output %s has no past", model->form->id, name);
      status = api->BindOutput(of->binding, name, of->slots[place].value);
    } else {
      status = api->BindOutputToDevice(of->binding, name, model->memory);
    }
    if (check(api, status, name, error)) return -1;
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
  if (!of->slots || !of->chunk_ids) return no_memory(error);
  if (check(api, api->CreateIoBinding(model->session, &of->binding), model->form->id, error)) return -1;
  of->id_value = wrap_axes(of, "input_ids", LOOPEDGE_INT64, &of->id, 2, 1, 1, 0, error);
  of->length_value = wrap_axes(of, "lengths", LOOPEDGE_INT32, &of->length, 1, 1, 0, 0, error);
  if (!of->id_value || !of->length_value) return -1;
  if (check(api, api->BindInput(of->binding, "lengths", of->length_value), "lengths", error)) return -1;
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
  result = check(api, api->BindInput(of->binding, "input_ids", value), "input_ids", error);
  if (!result) result = check(api, api->RunWithBinding(of->model->session, NULL, of->binding), of->model->form->id, error);
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
  const loopedge_port *port = input_of(manifest, LOOPEDGE_IDS, &place);
  int result = outputs ? 0 : no_memory(error);
  memset(inputs, 0, sizeof inputs);
  inputs[0].name = port->name;
  inputs[0].dtype = LOOPEDGE_INT64;
  inputs[0].rank = 2;
  inputs[0].shape[0] = 1;
  inputs[0].shape[1] = count;
  inputs[0].data = (void *)ids; /* read alone */
  port = input_of(manifest, LOOPEDGE_LOOPS, &place);
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
    result = fail(error, "%s: gives no logits float32 (batch, sequence, %.0f)", manifest->name, (double)vocabulary);
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
  if (!input_of(manifest, LOOPEDGE_IDS, &place)) return 0;
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
  if (!length) return fail(error, "the prompt is empty, at least one token is needed");
  if (manifest->text_context && length > (size_t)manifest->text_context) {
    return fail(error, "the prompt has %.0f tokens, the model takes at most %.0f", (double)length,
                (double)manifest->text_context);
  }
  for (i = 0; i < length; i++) {
    if (prompt[i] < 0 || (manifest->vocabulary && prompt[i] >= manifest->vocabulary)) {
      return fail(error, "the prompt: token %.0f is %.0f, the model takes ids from 0 to %.0f", (double)(i + 1),
                  (double)prompt[i], (double)manifest->vocabulary - 1);
    }
  }
  if (!loops) return 0;
  if (manifest->dynamic_loops && !model->form->loops) return check_loops(manifest, (double)loops, error);
  fixed = model->form->loops ? model->form->loops : manifest->default_loops;
  if (loops == fixed) return 0;
  return fail(error, "%s runs %.0f loops, %.0f were asked for", model->form->files[0].path, (double)fixed, (double)loops);
}

/* Compute the prompt; what follows is in the logits then. */
static int read_prompt(text *of, const int64_t *prompt, int64_t length, int64_t longest, int64_t loops,
                       loopedge_error *error) {
  loopedge_model *model = of->model;
  int64_t done;
  if (!logits_count(model->manifest)) return fail(error, "%s: writes no text", model->manifest->name);
  if (!model->manifest->decodes) {
    of->context = longest;
    of->vocabulary = logits_count(model->manifest);
    of->logits = (float *)calloc((size_t)of->vocabulary, sizeof *of->logits);
    return of->logits ? whole_text(model, prompt, length, loops, of->logits, of->vocabulary, error) : no_memory(error);
  }
  of->chunk = takes_whole_prompts(model) ? length : CHUNK;
  if (open_text(of, longest, loops ? loops : model->manifest->default_loops, error)) return -1;
  if (length > of->context) {
    return fail(error, "the prompt has %.0f tokens, the cache holds %.0f", (double)length, (double)of->context);
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
  start_error(error);
  if (check_prompt(model, prompt, prompt_length, loops, error)) return -1;
  memset(&of, 0, sizeof of);
  of.model = model;
  result = read_prompt(&of, prompt, (int64_t)prompt_length, (int64_t)prompt_length, loops, error);
  if (!result && (size_t)of.vocabulary != count) {
    result = fail(error, "the logits of a token are %.0f numbers, there is room for %.0f", (double)of.vocabulary,
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
  start_error(error);
  if (check_prompt(model, prompt, prompt_length, loops, error)) return -1;
  if (manifest->text_context && longest > manifest->text_context) longest = manifest->text_context;
  memset(&of, 0, sizeof of);
  of.model = model;
  result = read_prompt(&of, prompt, held, longest, loops, error);
  if (!result && !model->manifest->decodes) {
    all = (int64_t *)malloc((size_t)longest * sizeof *all);
    if (all) memcpy(all, prompt, prompt_length * sizeof *all);
    else result = no_memory(error);
  }
  while (!result && *written < new_tokens) {
    next = most_likely(of.logits, of.vocabulary);
    if (next < 0) result = fail(error, "%s: NaN or infinite logits after token %.0f", model->form->id, (double)held);
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

/* ---- Comparing ---- */

/* What two arrays are apart. */
typedef struct difference {
  double largest, expected; /* of the differences, and of what is expected */
  double noise, signal;     /* sums of squares of the same */
} difference;

/* Returns -1 where the shapes differ, or one holds NaN or infinity where the other does not. */
static int subtract(const loopedge_array *array, const loopedge_array *expected, difference *sum) {
  size_t i, count;
  if (!array->data || array->rank != expected->rank ||
      memcmp(array->shape, expected->shape, array->rank * sizeof *array->shape)) {
    return -1;
  }
  count = elements(array->shape, array->rank);
  sum->largest = sum->expected = 0;
  for (i = 0; i < count; i++) {
    double y = value_at(array, i), e = value_at(expected, i), d = fabs(y - e);
    if (isnan(y) && isnan(e)) continue;
    if (!isfinite(y) || !isfinite(e)) return -1;
    if (d > sum->largest) sum->largest = d;
    if (fabs(e) > sum->expected) sum->expected = fabs(e);
    sum->noise += d * d;
    sum->signal += e * e;
  }
  return 0;
}

int loopedge_compare(loopedge_check check_kind, double limit, const loopedge_array *outputs,
                     const loopedge_array *expected, size_t count, double *measured) {
  size_t i;
  double worst = 0;
  difference sum = {0, 0, 0, 0};
  *measured = check_kind == LOOPEDGE_EQUAL ? 0 : NAN;
  for (i = 0; i < count; i++) {
    double relative;
    if (subtract(&outputs[i], &expected[i], &sum)) return 0;
    relative = sum.expected > 0 ? sum.largest / sum.expected : sum.largest;
    if (relative > worst) worst = relative;
  }
  if (check_kind == LOOPEDGE_RELATIVE) *measured = worst;
  else if (check_kind == LOOPEDGE_EQUAL) *measured = sum.noise > 0 ? 0 : 1;
  else if (sum.noise <= 0) *measured = MOST_DB;
  else *measured = sum.signal > 0 ? fmin(10 * log10(sum.signal / sum.noise), MOST_DB) : -MOST_DB;
  return check_kind == LOOPEDGE_RELATIVE ? *measured <= limit : *measured >= limit;
}
