// A made-up NCCL: ranks are processes that meet in a folder, whose name is the id, and leave each other files. Exchanges are
// operations of streams and of graphs. What breaks NCCL's rules, such as exchanges on two streams at once, is a fault.
// By environment: FAKE_NCCL_VERSION; FAKE_NCCL_HANG and FAKE_NCCL_FAIL, each "RANK EXCHANGE" counted from 0.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"

enum { SUCCESS, SYSTEM = 2, ARGUMENT = 4, USAGE = 5, REMOTE = 6, IN_PROGRESS = 7, MOST_RANKS = 16 };
typedef struct { char internal[128]; } unique_id;
typedef struct comm {
  char folder[128], name[32];
  int rank, size, splits, error, aborted;
  int members[MOST_RANKS];
  uint64_t sent[MOST_RANKS], received[MOST_RANKS], collectives, exchanges;
} comm;
enum movement { SEND, RECEIVE, GATHER, REDUCE, SCATTER };
// A call, and a part of an exchange where calls are grouped.
typedef struct { enum movement how; const char *from; char *to; size_t bytes; int peer, op, done; uint64_t number; } part;
typedef struct exchange { comm *in; part parts[2 * MOST_RANKS]; int count, begun, hangs; } exchange;

static int number_of(const char *variable, int which) {
  const char *text = getenv(variable);
  int rank = -1, at = -1;
  if (text) sscanf(text, "%d %d", &rank, &at);
  return which ? at : rank;
}

status ncclGetVersion(int *version) {
  const char *text = getenv("FAKE_NCCL_VERSION");
  return *version = text ? atoi(text) : 23203, SUCCESS;
}
const char *ncclGetErrorString(status s) {
  return s == REMOTE ? "remote process exited or there was a network error" : s == USAGE ? "invalid usage" : "a made-up error";
}
const char *ncclGetLastError(comm *c) { return "said by the made-up NCCL"; }

status ncclGetUniqueId(unique_id *id) {
  const char *parent = getenv("FAKE_NCCL_FOLDER");
  memset(id, 0, sizeof *id);
  snprintf(id->internal, sizeof id->internal, "%s/XXXXXX", parent ? parent : "/tmp");
  return mkdtemp(id->internal) ? SUCCESS : SYSTEM;
}

// ---- files ----

static void path_of(char *path, const comm *c, const char *what, uint64_t number, int from, int to) {
  snprintf(path, 300, "%s/%s.%s.%llu.%d.%d", c->folder, c->name, what, (unsigned long long)number, from, to);
}
static void leave(const comm *c, const char *what, uint64_t number, int to, const void *bytes, size_t count) {
  char path[300], beside[320];
  path_of(path, c, what, number, c->rank, to);
  snprintf(beside, sizeof beside, "%s.part", path);
  FILE *file = fopen(beside, "wb");
  if (!file || fwrite(bytes, 1, count, file) != count || fclose(file) || rename(beside, path)) fault("cannot write %s", path);
}
// The bytes that another rank has left; NULL if they are not there yet.
static char *found(const comm *c, const char *what, uint64_t number, int from, int to, size_t count) {
  char path[300];
  path_of(path, c, what, number, from, to);
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *bytes = malloc(count + 1);
  size_t read = fread(bytes, 1, count + 1, file);
  fclose(file);
  if (read != count) fault("%s has %zu bytes, expected %zu: ranks do not run the same exchange", path, read, count);
  return bytes;
}

// ---- communicators ----

static status meet(comm *c) {
  int device = current_device();
  leave(c, "join", 0, 0, &device, sizeof device);
  const char *share = getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  for (int other = 0; other < c->size; other++) {
    char *bytes;
    for (double begun = seconds(); !(bytes = found(c, "join", 0, other, 0, sizeof device)); usleep(500))
      if (seconds() - begun > longest()) fault("rank %d of %s does not come", other, c->name);
    int same = *(int *)bytes == device;
    free(bytes);
    if (other != c->rank && same && !(share && !strcmp(share, "1"))) return USAGE;
  }
  return SUCCESS;
}
status ncclCommInitRank(comm **made, int size, unique_id id, int rank) {
  if (size > MOST_RANKS) return ARGUMENT;
  comm *c = *made = make(sizeof *c);
  memcpy(c->folder, id.internal, sizeof c->folder);
  snprintf(c->name, sizeof c->name, "world");
  c->rank = rank, c->size = size;
  for (int i = 0; i < size; i++) c->members[i] = i;
  status met = meet(c);
  return met ? (drop(c), *made = NULL, met) : SUCCESS;
}
status ncclCommSplit(comm *parent, int color, int key, comm **made, void *config) {
  int mine[2] = {color, key}, split = parent->splits++;
  leave(parent, "split", split, 0, mine, sizeof mine);
  comm *c = *made = make(sizeof *c);
  memcpy(c->folder, parent->folder, sizeof c->folder);
  snprintf(c->name, sizeof c->name, "split%d.%d", split, color);
  int keys[MOST_RANKS];
  for (int other = 0; other < parent->size; other++) {
    char *bytes;
    for (double begun = seconds(); !(bytes = found(parent, "split", split, other, 0, sizeof mine)); usleep(500))
      if (seconds() - begun > longest()) fault("rank %d does not split", other);
    int *theirs = (int *)bytes, at = c->size;
    if (theirs[0] == color) {
      for (; at > 0 && keys[at - 1] > theirs[1]; at--) keys[at] = keys[at - 1], c->members[at] = c->members[at - 1];
      keys[at] = theirs[1], c->members[at] = other, c->size++;
    }
    free(bytes);
  }
  for (int i = 0; i < c->size; i++)
    if (c->members[i] == parent->rank) c->rank = i;
  return SUCCESS;
}
status ncclCommAbort(comm *c) { return c->aborted = 1, SUCCESS; }
status ncclCommFinalize(comm *c) { return SUCCESS; }
status ncclCommDestroy(comm *c) { return drop(c); }
status ncclCommGetAsyncError(comm *c, status *error) { return *error = c->error, SUCCESS; }

// ---- exchanges ----

static int depth;
static exchange *grouped;
static struct stream *grouped_on;
static struct stream *only;

struct exchange *share_exchange(exchange *x) {
  exchange *again = make(sizeof *again);
  *again = *x, again->begun = 0;
  return again;
}
void drop_exchange(exchange *x) { drop(x); }

static status enqueue(exchange *x, struct stream *s) {
  if (only && only != s) fault("exchanges on two streams: they have no order that all ranks share");
  only = s;
  op o = {.kind = EXCHANGE, .exchange = x};
  comm *c = x->in;
  for (int i = 0; i < x->count; i++) {
    part *p = &x->parts[i];
    touch(&o, p->from, p->how == SCATTER ? p->bytes * c->size : p->bytes, 0);
    touch(&o, p->to, p->how == GATHER ? p->bytes * c->size : p->bytes, 1);
  }
  return queue(s, o);
}
static status add(comm *c, struct stream *s, part p) {
  if (grouped && (grouped->in != c || grouped_on != s)) fault("a group of calls in two communicators or streams");
  exchange *x = grouped ? grouped : make(sizeof *x);
  x->in = c;
  if (x->count == 2 * MOST_RANKS) return ARGUMENT;
  x->parts[x->count++] = p;
  if (!depth) return enqueue(x, s);
  return grouped = x, grouped_on = s, SUCCESS;
}
status ncclGroupStart(void) { return depth++, SUCCESS; }
status ncclGroupEnd(void) {
  if (--depth || !grouped) return SUCCESS;
  exchange *x = grouped;
  grouped = NULL;
  return enqueue(x, grouped_on);
}
static size_t width(int type) { return type < 2 ? 1 : type == 6 || type == 9 ? 2 : type == 4 || type == 5 || type == 8 ? 8 : 4; }
status ncclSend(const void *from, size_t count, int type, int peer, comm *c, struct stream *s) {
  return add(c, s, (part){.how = SEND, .from = from, .bytes = count * width(type), .peer = peer});
}
status ncclRecv(void *to, size_t count, int type, int peer, comm *c, struct stream *s) {
  return add(c, s, (part){.how = RECEIVE, .to = to, .bytes = count * width(type), .peer = peer});
}
status ncclAllGather(const void *from, void *to, size_t count, int type, comm *c, struct stream *s) {
  return add(c, s, (part){.how = GATHER, .from = from, .to = to, .bytes = count * width(type)});
}
status ncclAllReduce(const void *from, void *to, size_t count, int type, int op, comm *c, struct stream *s) {
  if (type != 7) return ARGUMENT;
  return add(c, s, (part){.how = REDUCE, .from = from, .to = to, .bytes = count * 4, .op = op});
}
status ncclReduceScatter(const void *from, void *to, size_t count, int type, int op, comm *c, struct stream *s) {
  if (type != 7) return ARGUMENT;
  return add(c, s, (part){.how = SCATTER, .from = from, .to = to, .bytes = count * 4, .op = op});
}

static const char *letters[] = {"p2p", "p2p", "gather", "reduce", "scatter"};

static void begin(exchange *x) {
  comm *c = x->in;
  int turn = c->exchanges++, me = c->members[c->rank];
  x->hangs = me == number_of("FAKE_NCCL_HANG", 0) && turn == number_of("FAKE_NCCL_HANG", 1);
  if (me == number_of("FAKE_NCCL_FAIL", 0) && turn == number_of("FAKE_NCCL_FAIL", 1)) c->error = REMOTE;
  for (int i = 0; i < x->count && !x->hangs && !c->error; i++) {
    part *p = &x->parts[i];
    p->done = p->how == SEND;
    if (p->how == SEND) leave(c, "p2p", c->sent[p->peer]++, p->peer, p->from, p->bytes);
    else if (p->how == RECEIVE) p->number = c->received[p->peer]++;
    else leave(c, letters[p->how], p->number = c->collectives++, 0, p->from, p->how == SCATTER ? p->bytes * c->size : p->bytes);
  }
}
// The last rank first: another order than that of linc's own sums.
static int finish(comm *c, part *p) {
  if (p->how == RECEIVE) {
    char *bytes = found(c, "p2p", p->number, p->peer, c->rank, p->bytes);
    if (bytes) memcpy(p->to, bytes, p->bytes), free(bytes);
    return bytes != NULL;
  }
  char *all[MOST_RANKS] = {0};
  int there = 1;
  for (int i = 0; i < c->size; i++)
    there &= !!(all[i] = found(c, letters[p->how], p->number, i, 0, p->how == SCATTER ? p->bytes * c->size : p->bytes));
  for (int i = c->size - 1; i >= 0 && there; i--) {
    if (p->how == GATHER) memcpy(p->to + i * p->bytes, all[i], p->bytes);
    const float *x = (float *)(p->how == SCATTER ? all[i] + c->rank * p->bytes : all[i]);
    float *y = (float *)p->to;
    for (size_t k = 0; k < p->bytes / 4 && p->how != GATHER; k++)
      y[k] = i == c->size - 1 ? x[k] : p->op == 2 ? (x[k] > y[k] ? x[k] : y[k]) : y[k] + x[k];
  }
  for (int i = 0; i < c->size; i++) free(all[i]);
  return there;
}
int run_exchange(exchange *x) {
  comm *c = x->in;
  if (c->aborted) return 1;
  if (!x->begun) x->begun = 1, begin(x);
  if (x->hangs || c->error) return 0;
  int done = 1;
  for (int i = 0; i < x->count; i++)
    if (!x->parts[i].done) done &= x->parts[i].done = finish(c, &x->parts[i]);
  return done;
}
