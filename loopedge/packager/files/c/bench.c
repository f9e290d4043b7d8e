/* bench.c: measure the model on this device; prints the JSON that `loopedge profile --json` prints, for `loopedge compare`.
 *
 *     ./bench > device.json
 *     ./bench FOLDER --form ID --threads 2 --runs 100 --loops 4 > device.json
 *
 * Memory is what the kernel says in /proc: growth over this process before the model is opened. Elsewhere it is null.
 */
#ifndef _WIN32
#define _POSIX_C_SOURCE 200112L
#include <sys/utsname.h>
#endif
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loopedge.h"
#include "loopedge_model.h"
#include "onnxruntime_c_api.h"

#define WARM_UP 3
#define LEAST_RUNS 20

typedef struct memory {
  double rss, anon, mapped, peak, own; /* bytes; -1: not known */
} memory;

typedef struct settings {
  const char *bundle;
  loopedge_options options;
  int runs;
  int64_t loops;
} settings;

/* What was measured. */
typedef struct measured {
  memory before, loaded, after;
  double load_seconds, *ms, error;
  size_t count;
  int64_t batch, sequence;
} measured;

static double now_ms(void) {
#ifdef _WIN32
  return 1000.0 * (double)clock() / CLOCKS_PER_SEC;
#else
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1000.0 * (double)time.tv_sec + (double)time.tv_nsec / 1e6;
#endif
}

/* ---- What the kernel says ---- */

/* Return the sum of the numbers of all lines that begin with a key; -1 where there is none. */
static double sum_of(const char *path, const char *key) {
  char line[512];
  double sum = -1;
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    if (!strncmp(line, key, strlen(key))) sum = (sum < 0 ? 0 : sum) + strtod(line + strlen(key), NULL);
  }
  if (file) fclose(file);
  return sum;
}

static double kib(const char *path, const char *key) {
  double found = sum_of(path, key);
  return found < 0 ? -1 : 1024 * found;
}

static memory read_memory(void) {
  static const char status[] = "/proc/self/status", rollup[] = "/proc/self/smaps_rollup";
  memory found;
  found.peak = kib(status, "VmHWM:");
  found.rss = kib(status, "VmRSS:");
  found.anon = kib(status, "RssAnon:");
  found.mapped = kib(status, "RssFile:");
  found.own = kib(rollup, "Private_Clean:");
  if (found.own >= 0) found.own += kib(rollup, "Private_Dirty:");
  return found;
}

/* Let the peak count from here on. */
static void reset_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (!file) return;
  fputs("5", file);
  fclose(file);
}

/* Start the runtime without a model: its 7 MiB of operator descriptions belong to no model. Other sessions share it. */
static OrtEnv *start_runtime(void) {
  const OrtApi *api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  OrtEnv *environment = NULL;
  OrtStatus *status = api ? api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bench", &environment) : NULL;
  if (status) api->ReleaseStatus(status);
  return environment;
}

static void end_runtime(OrtEnv *environment) {
  if (environment) OrtGetApiBase()->GetApi(ORT_API_VERSION)->ReleaseEnv(environment);
}

/* Return what stands behind the colon of the first such line. */
static const char *word_of(const char *path, const char *key, char word[256]) {
  char line[512];
  FILE *file = fopen(path, "r");
  word[0] = '\0';
  while (file && !word[0] && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (!colon || strncmp(line, key, strlen(key))) continue;
    line[strcspn(line, "\n")] = '\0';
    sprintf(word, "%.250s", colon + 1 + strspn(colon + 1, " \t"));
  }
  if (file) fclose(file);
  return word[0] ? word : NULL;
}

/* Count the cores that this process may use. */
static int cores(void) {
  char word[256];
  const char *mask = word_of("/proc/self/status", "Cpus_allowed:", word);
  int count = 0;
  for (; mask && *mask; mask++) {
    int digit = *mask >= '0' && *mask <= '9' ? *mask - '0' : *mask >= 'a' && *mask <= 'f' ? *mask - 'a' + 10 : 0;
    for (; digit; digit &= digit - 1) count++;
  }
  return count;
}

/* ---- JSON ---- */

static void put_text(const char *key, const char *text) {
  printf("\"%s\": ", key);
  if (!text) {
    printf("null, ");
    return;
  }
  putchar('"');
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if ((unsigned char)*text >= 32) putchar(*text);
  }
  printf("\", ");
}

static void put_number(const char *key, double value) {
  if (isnan(value)) printf("\"%s\": null, ", key);
  else printf("\"%s\": %.15g, ", key, value);
}

static void put_growth(const char *key, double now, double before) {
  put_number(key, now < 0 || before < 0 ? NAN : now - before);
}

static void put_machine(void) {
  char word[256], system[256] = "";
#ifndef _WIN32
  struct utsname name;
  if (uname(&name) >= 0) sprintf(system, "%.100s %.100s", name.sysname, name.machine);
#endif
  printf("\"machine\": {");
  put_text("cpu", word_of("/proc/cpuinfo", "model name", word));
  put_number("cores", cores() ? (double)cores() : (double)NAN);
  put_text("system", system[0] ? system : NULL);
  put_number("memory_bytes", kib("/proc/meminfo", "MemTotal:") < 0 ? NAN : kib("/proc/meminfo", "MemTotal:"));
  put_text("onnxruntime", loopedge_runtime_version());
  put_text("loopedge", LOOPEDGE_MODEL.loopedge);
  printf("\"host\": null}, ");
}

static int ascending(const void *a, const void *b) {
  double first = *(const double *)a, second = *(const double *)b;
  return (first > second) - (first < second);
}

/* Return a quantile of sorted values, between two of them by their distance, as numpy does. */
static double quantile(const double *sorted, size_t count, double part) {
  double place = part * (double)(count - 1);
  size_t below = (size_t)place, above = below + 1 < count ? below + 1 : below;
  return sorted[below] + (place - (double)below) * (sorted[above] - sorted[below]);
}

static void put_latency(double *ms, size_t count) {
  double sum = 0;
  size_t i;
  for (i = 0; i < count; i++) sum += ms[i];
  qsort(ms, count, sizeof *ms, ascending);
  printf("\"latency_ms\": {");
  put_number("p50", quantile(ms, count, 0.5));
  put_number("p95", quantile(ms, count, 0.95));
  put_number("p99", quantile(ms, count, 0.99));
  put_number("mean", sum / (double)count);
  put_number("min", ms[0]);
  printf("\"runs\": %.0f}, ", (double)count);
}

static const loopedge_form *form_of(const settings *chosen) {
  const char *id = chosen->options.form ? chosen->options.form : LOOPEDGE_MODEL.form;
  size_t i;
  for (i = 0; i < LOOPEDGE_MODEL.form_count; i++) {
    if (!strcmp(LOOPEDGE_MODEL.forms[i].id, id)) return &LOOPEDGE_MODEL.forms[i];
  }
  return NULL;
}

static void put_run(const settings *chosen, const loopedge_form *form, measured *found) {
  const char *path = form->files[0].path, *name = strrchr(path, '/'), *memory_profile = "balanced";
  double file_bytes = 0;
  int64_t loops = chosen->loops ? chosen->loops : LOOPEDGE_MODEL.default_loops;
  size_t i;
  for (i = 0; i < form->file_count; i++) file_bytes += (double)form->files[i].bytes;
  for (i = 0; i < form->config_count; i++) {
    if (!strcmp(form->config[i].key, "session.disable_prepacking") && !strcmp(form->config[i].value, "1")) {
      memory_profile = "low";
    }
  }
  printf("\"runs\": [{");
  put_text("name", name ? name + 1 : path);
  put_text("path", path);
  put_text("runtime", "onnxruntime");
  put_text("provider", "CPUExecutionProvider");
  put_text("form", form->form);
  put_text("quantization", form->scheme);
  put_text("memory", memory_profile);
  put_number("batch", (double)found->batch);
  put_number("sequence", found->sequence ? (double)found->sequence : NAN);
  put_number("loops", LOOPEDGE_MODEL.has_loops && loops ? (double)loops : NAN);
  put_number("threads", chosen->options.threads);
  put_number("processes", 1);
  put_number("file_bytes", file_bytes);
  put_number("weight_bytes", (double)form->weight_bytes);
  put_number("load_seconds", found->load_seconds);
  put_number("baseline_bytes", found->before.rss < 0 ? NAN : found->before.rss);
  put_growth("rss_load_bytes", found->loaded.rss, found->before.rss);
  put_growth("anon_bytes", found->loaded.anon, found->before.anon);
  put_growth("mapped_bytes", found->loaded.mapped, found->before.mapped);
  put_growth("uss_bytes", found->loaded.own, found->before.own);
  put_growth("rss_peak_bytes", found->after.peak, found->before.rss);
  put_number("output_error", found->error);
  put_latency(found->ms, found->count);
  printf("\"heap_bytes\": null}], ");
}

static void put_report(const settings *chosen, const loopedge_form *form, measured *found) {
  char created[64] = "";
  time_t seconds = time(NULL);
  struct tm *utc = gmtime(&seconds);
  if (utc) strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%S+00:00", utc);
  printf("{\"schema_version\": 3, \"client\": \"c\", ");
  put_text("created", created[0] ? created : NULL);
  put_machine();
  put_run(chosen, form, found);
  printf("\"limits\": [], \"failures\": [], \"notes\": [");
  if (LOOPEDGE_MODEL.decodes) printf("\"a latency is that of one token behind a prompt of %.0f\"", (double)found->sequence);
  printf("]}\n");
}

/* ---- Measuring ---- */

/* Return the norm of the difference to what is expected, in parts of its norm; of other types than floats NAN. */
static double norm_apart(const loopedge_array *outputs, size_t count, const loopedge_vector *vector, const char *bundle) {
  double difference = 0, norm = 0;
  size_t i, k, j, values;
  loopedge_error error;
  for (i = 0; i < vector->output_count; i++) {
    loopedge_array expected;
    for (k = 0; k < count && strcmp(outputs[k].name, vector->outputs[i].name); k++) {
    }
    if (k == count || outputs[k].dtype != LOOPEDGE_FLOAT32 || vector->outputs[i].dtype != LOOPEDGE_FLOAT32) continue;
    if (loopedge_read_array(bundle, &vector->outputs[i], &expected, &error)) return NAN;
    for (j = 0, values = 1; j < expected.rank; j++) values *= (size_t)expected.shape[j];
    for (j = 0; j < values; j++) {
      double e = ((const float *)expected.data)[j], y = ((const float *)outputs[k].data)[j];
      difference += (y - e) * (y - e);
      norm += e * e;
    }
    loopedge_free_arrays(&expected, 1);
  }
  return norm > 0 ? sqrt(difference / norm) : NAN;
}

/* Run the window so many times. */
static int time_windows(const settings *chosen, loopedge_model *model, const loopedge_vector *vector,
                        loopedge_array *inputs, size_t input_count, measured *found, loopedge_error *error) {
  size_t outputs_count = LOOPEDGE_MODEL.output_count;
  loopedge_array *outputs = (loopedge_array *)calloc(outputs_count ? outputs_count : 1, sizeof *outputs);
  int i, result = outputs ? 0 : -1;
  for (i = -WARM_UP; i < chosen->runs && !result; i++) {
    double start = now_ms();
    result = loopedge_run(model, inputs, input_count, outputs, error);
    if (!result && i >= 0) found->ms[found->count++] = now_ms() - start;
    if (!result && i == 0 && !chosen->loops) found->error = norm_apart(outputs, outputs_count, vector, chosen->bundle);
    if (!result) loopedge_free_arrays(outputs, outputs_count);
  }
  free(outputs);
  return result;
}

typedef struct tokens {
  measured *found;
  double last;
  int skip;
} tokens;

static int take_time(int64_t id, void *data) {
  tokens *of = (tokens *)data;
  double now = now_ms();
  (void)id;
  if (of->skip-- <= 0) of->found->ms[of->found->count++] = now - of->last;
  of->last = now;
  return 0;
}

/* Write on, again and again, until there are enough tokens. */
static int time_tokens(const settings *chosen, loopedge_model *model, const loopedge_array *prompt, measured *found,
                       loopedge_error *error) {
  int64_t *ids = (int64_t *)malloc((size_t)(chosen->runs + WARM_UP + 1) * sizeof *ids);
  size_t written = 0;
  int result = ids ? 0 : -1;
  while (!result && found->count < (size_t)chosen->runs) {
    tokens of = {found, 0, WARM_UP + 1};
    size_t wanted = (size_t)chosen->runs - found->count + WARM_UP + 1, before = found->count;
    result = loopedge_generate(model, (const int64_t *)prompt->data, (size_t)prompt->shape[prompt->rank - 1], wanted,
                               chosen->loops, take_time, &of, ids, &written, error);
    if (!result && found->count == before) {
      sprintf(error->text, "the text ends after %.0f tokens: too few to measure", (double)written);
      result = -1;
    }
  }
  free(ids);
  return result;
}

static int measure(settings *chosen, measured *found, loopedge_error *error) {
  const loopedge_vector *vector = LOOPEDGE_MODEL.vectors;
  size_t i, count = vector->input_count;
  loopedge_array *inputs = (loopedge_array *)calloc(count + 1, sizeof *inputs);
  loopedge_model *model = NULL;
  OrtEnv *environment = start_runtime();
  double start;
  int result = inputs ? 0 : -1;
  for (i = 0; i < count && !result; i++) {
    result = loopedge_read_array(chosen->bundle, &vector->inputs[i], &inputs[i], error);
  }
  for (i = 0; i < count && !result; i++) {
    if (inputs[i].rank > 1 && !found->sequence) {
      found->batch = inputs[i].shape[0];
      found->sequence = inputs[i].shape[1];
    }
  }
  if (!result && chosen->loops && !LOOPEDGE_MODEL.decodes) {
    for (i = 0; i < count && strcmp(inputs[i].name, "loops"); i++) {
    }
    if (i < count) free(inputs[i].data);
    inputs[i].name = "loops";
    inputs[i].dtype = LOOPEDGE_INT64;
    inputs[i].rank = 0;
    inputs[i].data = malloc(sizeof(int64_t));
    if (inputs[i].data) *(int64_t *)inputs[i].data = chosen->loops;
    else result = -1;
    if (i == count) count++;
  }
  reset_peak();
  found->before = read_memory();
  start = now_ms();
  if (!result) model = loopedge_open(&LOOPEDGE_MODEL, chosen->bundle, &chosen->options, error);
  found->load_seconds = (now_ms() - start) / 1000;
  found->loaded = read_memory();
  if (!model) result = -1;
  if (!result) {
    result = LOOPEDGE_MODEL.decodes ? time_tokens(chosen, model, &inputs[0], found, error)
                           : time_windows(chosen, model, vector, inputs, count, found, error);
  }
  found->after = read_memory();
  loopedge_close(model);
  end_runtime(environment);
  if (inputs) loopedge_free_arrays(inputs, count);
  free(inputs);
  return result;
}

/* Read a whole number of at least 1. */
static int number(const char *word) {
  char *end;
  long value = strtol(word, &end, 10);
  return *word && !*end && value > 0 && value < 1000000000 ? (int)value : -1;
}

static int read_words(int count, char **words, settings *chosen) {
  int i;
  for (i = 1; i < count; i++) {
    if (!strncmp(words[i], "--", 2) && i + 1 == count) return -1;
    if (!strcmp(words[i], "--form")) chosen->options.form = words[++i];
    else if (!strcmp(words[i], "--threads")) chosen->options.threads = number(words[++i]);
    else if (!strcmp(words[i], "--runs")) chosen->runs = number(words[++i]);
    else if (!strcmp(words[i], "--loops")) chosen->loops = number(words[++i]);
    else if (!strncmp(words[i], "--", 2)) return -1;
    else chosen->bundle = words[i];
  }
  if (chosen->runs < 0 || chosen->options.threads < 1 || chosen->loops < 0) return -1;
  if (chosen->runs < LEAST_RUNS) chosen->runs = LEAST_RUNS;
  return 0;
}

int main(int count, char **words) {
  settings chosen = {"..", {LOOPEDGE_VERIFY_SIZE, 1, NULL, 0}, 50, 0};
  measured found;
  const loopedge_form *form;
  loopedge_error error = {"there is no memory left"};
  int result;
  memset(&found, 0, sizeof found);
  found.error = NAN;
  if (read_words(count, words, &chosen)) {
    fprintf(stderr, "error: bench [FOLDER] [--form ID] [--threads N] [--runs N] [--loops N]\n");
    return 2;
  }
  form = form_of(&chosen);
  if (!form || !LOOPEDGE_MODEL.vector_count) {
    fprintf(stderr, "error: %s\n", form ? "the bundle has no test vectors" : "there is no such form in the bundle");
    return 2;
  }
  found.batch = 1;
  found.ms = (double *)malloc((size_t)chosen.runs * sizeof *found.ms);
  result = found.ms ? measure(&chosen, &found, &error) : -1;
  if (result) fprintf(stderr, "error: %s\n", error.text);
  else put_report(&chosen, form, &found);
  free(found.ms);
  return result ? 1 : 0;
}
