/* loopedge.h: run a model of a loopedge bundle from C, through the C API of ONNX Runtime 1.17 or later.
 *
 *     #include "loopedge.h"
 *     #include "loopedge_model.h"   // written by `loopedge package`: names, lengths, sizes and checksums of this model
 *
 *     loopedge_error error;
 *     loopedge_model *model = loopedge_open(&LOOPEDGE_MODEL, "path/of/bundle", NULL, &error);
 *     if (!model) { fprintf(stderr, "%s\n", error.text); return 1; }
 *
 * example.c is a whole program. Compile the files loopedge*.c into yours: C99, libc, libm and libonnxruntime; they parse no
 * JSON. Every function that can fail takes a loopedge_error and says there, in one line, what was wrong and what is
 * allowed. What fails leaves nothing behind. Where nothing fails its text is empty, or holds a warning. A model may be run
 * by several threads at once.
 */
#ifndef LOOPEDGE_H
#define LOOPEDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOOPEDGE_RANK 8 /* axes of an array at most */

/* Types of elements; the numbers are those of ONNX Runtime. */
typedef enum loopedge_dtype {
  LOOPEDGE_FLOAT32 = 1,
  LOOPEDGE_UINT8 = 2,
  LOOPEDGE_INT8 = 3,
  LOOPEDGE_INT32 = 6,
  LOOPEDGE_INT64 = 7,
  LOOPEDGE_BOOL = 9,
  LOOPEDGE_FLOAT16 = 10,
  LOOPEDGE_FLOAT64 = 11
} loopedge_dtype;

/* What an input or output is for. */
typedef enum loopedge_role {
  LOOPEDGE_VALUES,     /* raw units, (batch, sequence, features) */
  LOOPEDGE_IDS,        /* int64 (batch, sequence) */
  LOOPEDGE_MASK,       /* int64 (batch, sequence), 1 = keep */
  LOOPEDGE_LOOPS,      /* int64 (): how often the core runs */
  LOOPEDGE_TOLERANCE,  /* float32 (): the relative change that ends the loop */
  LOOPEDGE_LENGTHS,    /* of a cache: int32 (batch,) */
  LOOPEDGE_PAST,       /* of a cache */
  LOOPEDGE_NOISE,      /* normal numbers; drawn where they are left out */
  LOOPEDGE_LOGITS,
  LOOPEDGE_OUTPUTS,    /* raw units */
  LOOPEDGE_ITERATIONS, /* int64 (batch,): how many iterations ran */
  LOOPEDGE_PRESENT,    /* of a cache */
  LOOPEDGE_OTHER
} loopedge_role;

/* ---- What loopedge_model.h holds. 0 or NULL stands for "none". ---- */

typedef struct loopedge_port {
  const char *name;
  loopedge_role role;
  loopedge_dtype dtype;
  size_t rank;
  int64_t shape[LOOPEDGE_RANK];     /* -1: free */
  const char *axes[LOOPEDGE_RANK];  /* name of a free axis */
  int64_t exact_length, min_length, max_length; /* of the axis `sequence` */
  int64_t vocabulary; /* ids are 0 to one less */
  double deviation;   /* of noise */
  int any_value;      /* NaN and infinity pass: the file does not say what its values are */
} loopedge_port;

typedef struct loopedge_file {
  const char *path; /* from the root of the bundle */
  uint64_t bytes;
  const char *sha256;
} loopedge_file;

typedef struct loopedge_entry {
  const char *key, *value;
} loopedge_entry;

/* One form of the model, in one file with perhaps weights beside it. */
typedef struct loopedge_form {
  const char *id;
  const char *form;   /* loop, unrolled, scan, tensorscatter */
  const char *scheme; /* how it is quantized; NULL: float */
  const loopedge_file *files; /* the model first */
  size_t file_count;
  const loopedge_entry *config; /* session configuration */
  size_t config_count;
  int memory_pattern;
  int runtime_major, runtime_minor; /* oldest ONNX Runtime that loads it */
  int64_t loops;                    /* iterations, where this form fixes them */
  uint64_t weight_bytes;
} loopedge_form;

typedef struct loopedge_array_file {
  const char *name;
  loopedge_dtype dtype;
  size_t rank;
  int64_t shape[LOOPEDGE_RANK];
  const char *file;
} loopedge_array_file;

typedef enum loopedge_check {
  LOOPEDGE_RELATIVE, /* max |y - e| <= limit * max |e| */
  LOOPEDGE_SQNR,     /* 10 log10(sum e^2 / sum (y - e)^2) >= limit, in dB */
  LOOPEDGE_EQUAL     /* 1 where ids are the same, else 0 */
} loopedge_check;

/* Inputs, and what must come out. */
typedef struct loopedge_vector {
  const char *name;
  const loopedge_array_file *inputs;
  size_t input_count;
  const loopedge_array_file *outputs;
  size_t output_count;
  loopedge_check check;
  double limit;
  const char *prompt, *completion; /* of text models, in UTF-8 */
} loopedge_vector;

typedef struct loopedge_manifest {
  const char *name, *loopedge; /* of the model, and the version of loopedge that wrote it */
  const loopedge_port *inputs;
  size_t input_count;
  const loopedge_port *outputs;
  size_t output_count;
  int has_loops, dynamic_loops;
  int64_t default_loops, most_loops, least_trained, most_trained; /* most_loops: what the tables hold; 0: not known */
  int has_tolerance;
  double default_tolerance, least_tolerance;
  int missing_values; /* NaN is a missing value */
  /* Of models of tables: windows are padded on the left, with pad, to context; min_context table rows at least. */
  int64_t context, min_context;
  const double *pad;
  size_t pad_count;
  /* Of text models. */
  int has_tokenizer, byte_tokenizer;
  const int64_t *end_ids;
  size_t end_id_count;
  int decodes; /* it goes on from a cache: loopedge_generate and loopedge_logits run it, loopedge_run does not */
  int64_t vocabulary, text_context, new_tokens;
  const loopedge_form *forms;
  size_t form_count;
  const char *form; /* the id of the one that C opens */
  const loopedge_vector *vectors;
  size_t vector_count;
  const loopedge_file *files; /* every file of the bundle but manifest.json and loopedge_model.h */
  size_t file_count;
} loopedge_manifest;

/* ---- Running ---- */

typedef struct loopedge_error {
  char text[512];
} loopedge_error;

typedef struct loopedge_model loopedge_model;

typedef enum loopedge_verify {
  LOOPEDGE_VERIFY_FULL, /* sizes and SHA-256 of manifest.json and of each file that is opened */
  LOOPEDGE_VERIFY_SIZE  /* sizes alone: a flipped bit is not found */
} loopedge_verify;

typedef struct loopedge_options {
  loopedge_verify verify;
  int threads;      /* inside an operator; 0: as ONNX Runtime chooses */
  const char *form; /* id of another form; NULL: the one for C */
  uint64_t seed;    /* of noise that is drawn */
} loopedge_options;

/* An array, row by row. */
typedef struct loopedge_array {
  const char *name;
  loopedge_dtype dtype;
  size_t rank;
  int64_t shape[LOOPEDGE_RANK];
  void *data;
} loopedge_array;

/* Open a bundle. options may be NULL. Returns NULL where it fails. */
loopedge_model *loopedge_open(const loopedge_manifest *manifest, const char *bundle, const loopedge_options *options,
                              loopedge_error *error);
void loopedge_close(loopedge_model *model);

/* Run inputs, in any order. What is left out is filled in: the mask, the loop count, the tolerance; windows of a table
 * that are shorter than the context are padded on the left and masked, where training did that. outputs must have room
 * for manifest->output_count arrays; what is not computed by this form has data NULL. Free them with
 * loopedge_free_arrays. Returns 0, or -1 where it fails. */
int loopedge_run(loopedge_model *model, const loopedge_array *inputs, size_t input_count, loopedge_array *outputs,
                 loopedge_error *error);
void loopedge_free_arrays(loopedge_array *arrays, size_t count);

/* Called for each token as it is found; another answer than 0 ends the text. */
typedef int (*loopedge_on_token)(int64_t id, void *data);

/* Write on, greedily: each time the most likely token. ids must have room for new_tokens; written gets how many there
 * are, the end token left out. Ends before new_tokens at an end token. A form that decodes keeps keys and values in one
 * buffer that is bound as past and present; another form computes the whole text for each token. loops 0: as exported.
 * With a tokenizer of bytes an id is a byte of UTF-8; else the program brings its own tokenizer for tokenizer.json. */
int loopedge_generate(loopedge_model *model, const int64_t *prompt, size_t prompt_length, size_t new_tokens,
                      int64_t loops, loopedge_on_token on_token, void *data, int64_t *ids, size_t *written,
                      loopedge_error *error);

/* Compute what follows a text: logits gets a number for each token of the vocabulary, count of them. */
int loopedge_logits(loopedge_model *model, const int64_t *prompt, size_t prompt_length, int64_t loops, float *logits,
                    size_t count, loopedge_error *error);

/* ---- Files ---- */

/* Compare every file of the bundle with its checksum. */
int loopedge_check_bundle(const loopedge_manifest *manifest, const char *bundle, loopedge_error *error);

/* Read an array of a vector; free it with loopedge_free_arrays. */
int loopedge_read_array(const char *bundle, const loopedge_array_file *file, loopedge_array *array,
                        loopedge_error *error);

/* Hold what came out against what should; measured gets the figure of the check, NaN where there is none, as of another
 * shape. Returns 1 where it passes, else 0. */
int loopedge_compare(loopedge_check check, double limit, const loopedge_array *outputs, const loopedge_array *expected,
                     size_t count, double *measured);

/* The SHA-256 of bytes in hex. */
void loopedge_sha256(const void *bytes, size_t count, char hex[65]);

/* "1.32.0" */
const char *loopedge_runtime_version(void);

/* Bytes of an element; 0: not known. */
size_t loopedge_element_bytes(loopedge_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
