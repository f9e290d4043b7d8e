/* loopedge_files.c: errors, SHA-256, the files of a bundle, how far outputs are apart. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge_internal.h"

#define SCHEMA_VERSION 1 /* of manifest.json */
#define MOST_DB 200.0    /* what is said of outputs without any error */

/* ---- Errors ---- */

int le_fail(loopedge_error *error, const char *format, ...) {
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

void le_start_error(loopedge_error *error) {
  if (error) error->text[0] = '\0';
}

int le_no_memory(loopedge_error *error) { return le_fail(error, "there is no memory left"); }

/* Return 0 where ONNX Runtime did what was asked, else say what it says. */
int le_check(const OrtApi *api, OrtStatus *status, const char *what, loopedge_error *error) {
  if (!status) return 0;
  le_fail(error, "%s: %s", what, api->GetErrorMessage(status));
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
    le_no_memory(error);
    return NULL;
  }
  sprintf(name, "%s/%s", bundle, path);
  file = fopen(name, "rb");
  if (!file) le_fail(error, "%s: cannot be read from %s: %s", path, bundle, strerror(errno));
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
      le_no_memory(error);
      break;
    }
    content = larger;
    read = fread(content + *count, 1, room - *count, file);
    *count += read;
    content[*count] = '\0';
  } while (*count == room);
  if (!larger || ferror(file)) {
    if (larger) le_fail(error, "%s: cannot be read: %s", path, strerror(errno));
    free(content);
    content = NULL;
  }
  fclose(file);
  return content;
}

static int check_bytes(const loopedge_file *file, uint64_t bytes, loopedge_error *error) {
  if (bytes == file->bytes) return 0;
  return le_fail(error, "%s: %.0f bytes, the bundle was made with %.0f: copy the file again", file->path, (double)bytes,
              (double)file->bytes);
}

int le_check_file(const char *bundle, const loopedge_file *file, loopedge_verify verify, loopedge_error *error) {
  unsigned char *buffer;
  char hex[65];
  size_t read;
  sha256 hash;
  int result = 0;
  FILE *stream = open_file(bundle, file->path, error);
  if (!stream) return -1;
  if (verify == LOOPEDGE_VERIFY_SIZE) {
    if (fseek(stream, 0, SEEK_END) || ftell(stream) < 0) {
      result = le_fail(error, "%s: its size cannot be read: %s", file->path, strerror(errno));
    } else {
      result = check_bytes(file, (uint64_t)ftell(stream), error);
    }
    fclose(stream);
    return result;
  }
  buffer = (unsigned char *)malloc(1 << 16);
  if (!buffer) result = le_no_memory(error);
  sha256_start(&hash);
  while (buffer && (read = fread(buffer, 1, 1 << 16, stream)) > 0) sha256_add(&hash, buffer, read);
  if (buffer && ferror(stream)) result = le_fail(error, "%s: cannot be read: %s", file->path, strerror(errno));
  free(buffer);
  fclose(stream);
  if (!result) result = check_bytes(file, hash.bytes, error);
  if (result) return result;
  sha256_end(&hash, hex);
  if (strcmp(hex, file->sha256)) {
    return le_fail(error, "%s: SHA-256 is %s, the bundle was made with %s: the file was changed or damaged", file->path,
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
char *le_check_manifest(const char *bundle, const loopedge_file *files, size_t count, loopedge_error *error) {
  size_t length, i;
  char stated[65], hex[65], *checksum, *version, *text = read_file(bundle, "manifest.json", &length, error);
  if (!text) return NULL;
  version = value_of(text, "\"schema_version\":");
  checksum = value_of(text, "\"checksum\":");
  if (version && strtol(version, NULL, 10) > SCHEMA_VERSION) {
    le_fail(error, "manifest.json: schema %ld, this client reads %d: take the one of the bundle",
         strtol(version, NULL, 10), SCHEMA_VERSION);
  } else if (!checksum || strspn(checksum, "0123456789abcdef") != 64) {
    le_fail(error, "manifest.json: there is no checksum in it: the file was changed or damaged");
  } else {
    memcpy(stated, checksum, 64);
    stated[64] = '\0';
    memset(checksum, '0', 64);
    loopedge_sha256(text, length, hex);
    for (i = 0; i < count && strstr(text, files[i].sha256); i++) {
    }
    if (strcmp(stated, hex)) {
      le_fail(error, "manifest.json: its checksum is %s, it says %s: the file was changed or damaged", hex, stated);
    } else if (i < count) {
      le_fail(error, "manifest.json: lists another %s than loopedge_model.h: compile with the header of this bundle",
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
  char sha[65], *entry, *text = le_check_manifest(bundle, manifest->files, manifest->file_count, error);
  loopedge_file file = {header, 0, sha};
  int result = 0;
  if (!text) return -1;
  for (i = 0; i < manifest->file_count && !result; i++) {
    result = le_check_file(bundle, &manifest->files[i], LOOPEDGE_VERIFY_FULL, error);
  }
  entry = value_of(text, "\"c/loopedge_model.h\""); /* it cannot hold its own checksum */
  if (!result && entry) {
    char *bytes = value_of(entry, "\"bytes\""), *hex = value_of(entry, "\"sha256\"");
    if (bytes && hex) {
      file.bytes = (uint64_t)strtod(bytes, NULL);
      memcpy(sha, hex, 64);
      sha[64] = '\0';
      result = le_check_file(bundle, &file, LOOPEDGE_VERIFY_FULL, error);
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

const char *le_dtype_name(loopedge_dtype dtype) {
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

size_t le_elements(const int64_t *shape, size_t rank) {
  size_t i, count = 1;
  for (i = 0; i < rank; i++) count *= (size_t)shape[i];
  return count;
}

int loopedge_read_array(const char *bundle, const loopedge_array_file *file, loopedge_array *array,
                        loopedge_error *error) {
  size_t count, wanted = le_elements(file->shape, file->rank) * loopedge_element_bytes(file->dtype);
  char *content = read_file(bundle, file->file, &count, error);
  if (!content) return -1;
  if (count != wanted) {
    free(content);
    return le_fail(error, "%s: %.0f bytes, %.0f are needed: copy the file again", file->file, (double)count,
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

/* ---- Comparing ---- */

double le_value_at(const loopedge_array *array, size_t i) {
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
  count = le_elements(array->shape, array->rank);
  sum->largest = sum->expected = 0;
  for (i = 0; i < count; i++) {
    double y = le_value_at(array, i), e = le_value_at(expected, i), d = fabs(y - e);
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
