/* loopedge_inputs.c: what a model is fed is checked, and what is missing filled in, as `loopedge run` does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopedge_internal.h"

const loopedge_port *le_find_port(const loopedge_port *ports, size_t count, const char *name) {
  size_t i;
  for (i = 0; i < count; i++) {
    if (!strcmp(ports[i].name, name)) return &ports[i];
  }
  return NULL;
}

const loopedge_port *le_input_of(const loopedge_manifest *manifest, loopedge_role role, size_t *place) {
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
    return le_fail(error, "input %s: the type is %s, the model takes %s", port->name, le_dtype_name(array->dtype),
                le_dtype_name(port->dtype));
  }
  if (array->rank != port->rank) {
    return le_fail(error, "input %s: %.0f axes, the model takes %.0f", port->name, (double)array->rank,
                (double)port->rank);
  }
  for (i = 0; i < port->rank; i++) {
    if (array->shape[i] < 1 || (port->shape[i] >= 0 && array->shape[i] != port->shape[i])) {
      char allowed[32] = "at least 1";
      if (port->shape[i] >= 0) sprintf(allowed, "%.0f", (double)port->shape[i]);
      return le_fail(error, "input %s: axis %.0f has size %.0f, the model takes %s", port->name, (double)(i + 1),
                  (double)array->shape[i], allowed);
    }
  }
  if (!array->data) return le_fail(error, "input %s: there is no data", port->name);
  return 0;
}

static int check_values(const loopedge_manifest *manifest, const loopedge_port *port, const loopedge_array *array,
                        loopedge_error *error) {
  size_t i, count = le_elements(array->shape, array->rank);
  char place[96];
  for (i = 0; i < count; i++) {
    double value = le_value_at(array, i);
    if (array->dtype == LOOPEDGE_FLOAT32 || array->dtype == LOOPEDGE_FLOAT64 || array->dtype == LOOPEDGE_FLOAT16) {
      if (!port->any_value && (isinf(value) || (isnan(value) && !manifest->missing_values))) {
        return le_fail(error, "input %s: %s is %s, the model takes finite numbers%s", port->name,
                    place_of(array, i, place), isnan(value) ? "NaN" : "infinite",
                    manifest->missing_values ? " and NaN for missing values" : "");
      }
    } else if (port->role == LOOPEDGE_IDS && port->vocabulary && (value < 0 || value >= (double)port->vocabulary)) {
      return le_fail(error, "input %s: %s is %.0f, the model takes ids from 0 to %.0f", port->name,
                  place_of(array, i, place), value, (double)port->vocabulary - 1);
    } else if (port->role == LOOPEDGE_MASK && value != 0 && value != 1) {
      return le_fail(error, "input %s: %s is %.0f, a mask holds 1 where a position is kept and 0 where it is not",
                  port->name, place_of(array, i, place), value);
    }
  }
  return 0;
}

static int check_length(const loopedge_port *port, int64_t length, loopedge_error *error) {
  int64_t least = port->exact_length ? port->exact_length : port->min_length;
  int64_t most = port->exact_length ? port->exact_length : port->max_length;
  if (least && length < least) {
    return le_fail(error, "input %s: %.0f positions, the model takes %s%.0f", port->name, (double)length,
                port->exact_length ? "" : "at least ", (double)least);
  }
  if (most && length > most) {
    return le_fail(error, "input %s: %.0f positions, the model takes %s%.0f", port->name, (double)length,
                port->exact_length ? "" : "at most ", (double)most);
  }
  return 0;
}

static void *own(le_prepared *feeds, size_t place, size_t count, size_t size) {
  void *data = calloc(count ? count : 1, size);
  free(feeds->owned[place]);
  feeds->owned[place] = data;
  return data;
}

/* Refuse a loop count that the model cannot run; warn of one that training never saw. */
int le_check_loops(const loopedge_manifest *manifest, double loops, loopedge_error *error) {
  if (loops < 1 && !manifest->most_loops) return le_fail(error, "loops: %.0f, at least 1 is needed", loops);
  if (loops < 1 || (manifest->most_loops && loops > (double)manifest->most_loops)) {
    return le_fail(error, "loops: %.0f, the model runs 1 to %.0f", loops, (double)manifest->most_loops);
  }
  if (loops < (double)manifest->least_trained || loops > (double)manifest->most_trained) {
    le_fail(error, "warning: loops: %.0f, the model was trained on %.0f to %.0f", loops, (double)manifest->least_trained,
         (double)manifest->most_trained);
  }
  return 0;
}

/* Add one number where the caller brought none; hold what was brought to what training saw. */
static int fill_loops(const loopedge_manifest *manifest, le_prepared *feeds, loopedge_error *error) {
  size_t place;
  const loopedge_port *port = le_input_of(manifest, LOOPEDGE_LOOPS, &place);
  loopedge_array *array;
  double loops;
  if (!port) return 0;
  array = &feeds->arrays[place];
  if (!array->data) {
    if (!manifest->default_loops) return le_fail(error, "input %s is missing: the bundle knows no default", port->name);
    array->data = own(feeds, place, 1, sizeof(int64_t));
    if (!array->data) return le_no_memory(error);
    if (port->dtype == LOOPEDGE_INT32) *(int32_t *)array->data = (int32_t)manifest->default_loops;
    else *(int64_t *)array->data = manifest->default_loops;
    array->name = port->name;
    array->dtype = port->dtype;
    array->rank = port->rank;
    array->shape[0] = 1;
  }
  loops = le_value_at(array, 0);
  return le_check_loops(manifest, loops, error);
}

static int fill_tolerance(const loopedge_manifest *manifest, le_prepared *feeds, loopedge_error *error) {
  size_t place;
  const loopedge_port *port = le_input_of(manifest, LOOPEDGE_TOLERANCE, &place);
  loopedge_array *array;
  if (!port) return 0;
  array = &feeds->arrays[place];
  if (!array->data) {
    array->data = own(feeds, place, 1, sizeof(float));
    if (!array->data) return le_no_memory(error);
    *(float *)array->data = (float)manifest->default_tolerance;
    array->name = port->name;
    array->dtype = LOOPEDGE_FLOAT32;
    array->rank = port->rank;
    array->shape[0] = 1;
  }
  if (!(le_value_at(array, 0) >= manifest->least_tolerance)) {
    return le_fail(error, "input %s: %g, at least %g is needed", port->name, le_value_at(array, 0),
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
static int fill_noise(const loopedge_manifest *manifest, le_prepared *feeds, const loopedge_array *sized, uint64_t seed,
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
      if (array->shape[k] < 1) return le_fail(error, "input %s is missing, and its size is not known", port->name);
    }
    if (port->dtype != LOOPEDGE_FLOAT32) return le_fail(error, "input %s is missing", port->name);
    array->name = port->name;
    array->dtype = port->dtype;
    array->rank = port->rank;
    count = le_elements(array->shape, array->rank);
    array->data = own(feeds, i, count, sizeof(float));
    if (!array->data) return le_no_memory(error);
    for (k = 0; k < count; k++) ((float *)array->data)[k] = (float)(port->deviation * normal(&seed));
  }
  return 0;
}

/* Add the mask that the model takes and its inputs lack: every position is kept. */
static int fill_mask(const loopedge_manifest *manifest, le_prepared *feeds, const loopedge_array *masked,
                     loopedge_error *error) {
  size_t place, i, count;
  const loopedge_port *port = le_input_of(manifest, LOOPEDGE_MASK, &place);
  loopedge_array *array;
  if (!port || masked->rank < 2) return 0;
  array = &feeds->arrays[place];
  if (array->data) {
    if (array->shape[0] == masked->shape[0] && array->shape[1] == masked->shape[1]) return 0;
    return le_fail(error, "input %s: %.0f x %.0f, the positions that it masks are %.0f x %.0f", port->name,
                (double)array->shape[0], (double)array->shape[1], (double)masked->shape[0],
                (double)masked->shape[1]);
  }
  if (port->dtype != LOOPEDGE_INT64) return le_fail(error, "input %s is missing", port->name);
  count = (size_t)masked->shape[0] * (size_t)masked->shape[1];
  array->data = own(feeds, place, count, sizeof(int64_t));
  if (!array->data) return le_no_memory(error);
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
    for (i = 0; i < length; i++) kept += le_value_at(mask, row * length + i) != 0;
    if (le_value_at(mask, row * length + length - 1) == 0) {
      return le_fail(error, "input %s: sample %.0f masks its last position, the model answers at that one: pad on the left",
                  mask->name, (double)(row + 1));
    }
    if (kept < (double)manifest->min_context) {
      return le_fail(error, "input %s: sample %.0f has %.0f table rows, the model was trained on at least %.0f", mask->name,
                  (double)(row + 1), kept, (double)manifest->min_context);
    }
  }
  return 0;
}

/* Pad windows on the left to the context, with the mean of training, and mask what was added. */
static int pad(const loopedge_manifest *manifest, le_prepared *feeds, size_t values_place, size_t mask_place,
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
    return le_no_memory(error);
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

static int take_windows(const loopedge_manifest *manifest, le_prepared *feeds, size_t place, loopedge_error *error) {
  size_t mask_place;
  const loopedge_array *values = &feeds->arrays[place];
  const loopedge_port *mask = le_input_of(manifest, LOOPEDGE_MASK, &mask_place);
  if (values->rank != 3 || !manifest->context) return 0;
  if (mask) {
    if (check_windows(manifest, &feeds->arrays[mask_place], error)) return -1;
    if (values->shape[1] >= manifest->context || values->shape[2] != (int64_t)manifest->pad_count) return 0;
    if (values->dtype != LOOPEDGE_FLOAT32 && values->dtype != LOOPEDGE_FLOAT64) return 0;
    return pad(manifest, feeds, place, mask_place, error);
  }
  if (values->shape[1] >= manifest->context) return 0;
  return le_fail(error, "input %s: %.0f positions, the model was trained on windows of %.0f table rows", values->name,
              (double)values->shape[1], (double)manifest->context);
}

/* Sort what the caller brought by the inputs of the model, and check each. */
static int sort_inputs(const loopedge_manifest *manifest, const loopedge_array *inputs, size_t count,
                       le_prepared *feeds, loopedge_error *error) {
  size_t i;
  char names[256];
  for (i = 0; i < count; i++) {
    const loopedge_port *port = le_find_port(manifest->inputs, manifest->input_count, inputs[i].name);
    if (!port) return le_fail(error, "no input %s: the model takes %s", inputs[i].name, listed(manifest, names));
    if (check_shape(port, &inputs[i], error) || check_values(manifest, port, &inputs[i], error)) return -1;
    feeds->arrays[port - manifest->inputs] = inputs[i];
  }
  return 0;
}

/* Check what the caller brought, and fill in the rest. */
int le_prepare(const loopedge_manifest *manifest, const loopedge_array *inputs, size_t count, uint64_t seed,
                   le_prepared *feeds, loopedge_error *error) {
  size_t i, place = 0;
  char names[256];
  int padded;
  const loopedge_port *port = le_input_of(manifest, LOOPEDGE_VALUES, &place);
  memset(feeds, 0, sizeof *feeds);
  if (manifest->input_count > LOOPEDGE_PORTS) {
    return le_fail(error, "the model has %.0f inputs, the client takes %d", (double)manifest->input_count,
                LOOPEDGE_PORTS);
  }
  if (sort_inputs(manifest, inputs, count, feeds, error)) return -1;
  if (!port) port = le_input_of(manifest, LOOPEDGE_IDS, &place);
  if (port && feeds->arrays[place].data) {
    const loopedge_array *array = &feeds->arrays[place];
    size_t mask_place;
    padded = manifest->context && le_input_of(manifest, LOOPEDGE_MASK, &mask_place) != NULL;
    if (!padded && array->rank > 1 && check_length(port, array->shape[1], error)) return -1;
    if (fill_mask(manifest, feeds, array, error) || take_windows(manifest, feeds, place, error)) return -1;
    if (padded && array->rank > 1 && check_length(port, array->shape[1], error)) return -1;
    if (fill_noise(manifest, feeds, array, seed, error)) return -1;
  }
  if (fill_loops(manifest, feeds, error) || fill_tolerance(manifest, feeds, error)) return -1;
  for (i = 0; i < manifest->input_count; i++) {
    if (!feeds->arrays[i].data) {
      return le_fail(error, "input %s is missing: the model takes %s", manifest->inputs[i].name,
                  listed(manifest, names));
    }
  }
  return 0;
}

void le_release(le_prepared *feeds) {
  size_t i;
  for (i = 0; i < LOOPEDGE_PORTS; i++) free(feeds->owned[i]);
}
