// Streams, events and graphs of the made-up driver. Nothing runs when it is queued: streams go on when somebody asks or
// waits, one operation at a time. A vector clock for each stream says what has happened before what: two operations that
// touch the same bytes, one of them to write, without an order between them are a fault, whichever happened to run first.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

enum { STREAMS = 17, HOST = STREAMS, CLOCK = STREAMS + 1, KEPT = 64, NOT_READY = 600, CAPTURING = 900 };
typedef struct { uint64_t at[CLOCK]; } clocks;
typedef struct stream { int number; op *first, **last; clocks now; struct graph *recording; } stream;
// Of the last times that it was recorded, what had happened before.
typedef struct event { uint64_t recorded, happened; clocks before[KEPT]; struct graph *graph; } event;
typedef struct graph { op *first, **last; stream *lanes[4]; int lane_count; event *events[256], *inside[256]; int event_count; stream *origin; } graph;

static int live;
int fake_live(void) { return live; }
void *make(size_t bytes) { return live++, calloc(1, bytes ? bytes : 1); }
// As the driver aligns memory of a GPU.
void *make_aligned(size_t bytes) {
  void *p;
  return posix_memalign(&p, 256, bytes) ? NULL : (live++, p);
}
status drop(void *p) { return free(p), live--, 0; }

void fault(const char *form, ...) {
  va_list args;
  va_start(args, form);
  fprintf(stderr, "fake: ");
  vfprintf(stderr, form, args);
  fprintf(stderr, "\n");
  _exit(86);
}

double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
double longest(void) {
  const char *text = getenv("FAKE_DEADLINE");
  return text ? atof(text) : 60;
}

static stream *streams[STREAMS];
static clocks host;

static void merge(clocks *to, const clocks *from) {
  for (int i = 0; i < CLOCK; i++)
    if (from->at[i] > to->at[i]) to->at[i] = from->at[i];
}

// ---- who touched what ----

typedef struct { range r; int stream, kind; uint64_t time; } touched;
static touched *history;
static size_t history_count, history_room;
static const char *names[] = {"a copy", "a memset", "a kernel", "a matmul", "a record", "a wait", "an exchange"};

void touch(op *o, const void *from, size_t bytes, int writes) {
  if (!bytes) return;
  if (o->ranges == MOST_RANGES) fault("an operation touches more than %d ranges", MOST_RANGES);
  o->touched[o->ranges++] = (range){from, bytes, writes};
}

static void check(const op *o) {
  stream *s = o->stream;
  for (int i = 0; i < o->ranges; i++) {
    range r = o->touched[i];
    for (size_t k = 0; k < history_count; k++) {
      touched *t = &history[k];
      int overlap = r.from < t->r.from + t->r.bytes && t->r.from < r.from + r.bytes;
      if (overlap && (r.writes || t->r.writes) && t->stream != s->number && t->time > s->now.at[t->stream])
        fault("race: %s on stream %d and %s on stream %d touch the same bytes, and neither waits for the other",
              names[t->kind], t->stream, names[o->kind], s->number);
    }
    if (history_count == history_room) {
      history_room = 2 * history_room + 64;
      history = realloc(history, history_room * sizeof *history);
    }
    history[history_count++] = (touched){r, s->number, o->kind, s->now.at[s->number]};
  }
}

// What the host knows to be over is before all that it queues from now on.
static void forget(void) {
  for (int i = 0; i < STREAMS; i++)
    if (streams[i] && streams[i]->first) return;
  size_t left = 0;
  for (size_t k = 0; k < history_count; k++)
    if (history[k].time > host.at[history[k].stream]) history[left++] = history[k];
  history_count = left;
}

// ---- streams ----

static int advance(stream *s) {
  op *o = s->first;
  if (!o) return 0;
  if (o->kind == WAIT && o->event->happened < o->ticket) return 0;
  if (!o->begun) {
    o->begun = 1;
    clocks queued;
    memcpy(queued.at, o->host, sizeof queued.at);
    merge(&s->now, &queued);
    s->now.at[s->number]++;
    if (o->kind == WAIT) {
      if (o->event->happened >= o->ticket + KEPT) fault("an event was recorded too often before it was waited for");
      merge(&s->now, &o->event->before[o->ticket % KEPT]);
    }
    check(o);
  }
  if (o->kind == RECORD) o->event->happened++, o->event->before[o->event->happened % KEPT] = s->now;
  if (o->kind != RECORD && o->kind != WAIT && !run(o)) return 0;
  s->first = o->next;
  if (!s->first) s->last = &s->first;
  if (o->exchange) drop_exchange(o->exchange);
  free(o);
  return 1;
}

int progress(void) {
  int went = 0;
  for (int i = STREAMS - 1; i >= 0; i--)
    while (streams[i] && advance(streams[i])) went = 1;
  return went;
}

static void append(stream *s, const op *o) {
  op *kept = malloc(sizeof *kept);
  *kept = *o, kept->next = NULL, kept->stream = s, kept->begun = 0;
  memcpy(kept->host, host.at, sizeof kept->host);
  *s->last = kept, s->last = &kept->next;
}

status queue(stream *s, op o) {
  o.stream = s;
  if (!s->recording) return append(s, &o), 0;
  op *kept = make(sizeof o);
  *kept = o, kept->next = NULL;
  *s->recording->last = kept, s->recording->last = &kept->next;
  return 0;
}

status cuStreamCreate(stream **made, unsigned flags) {
  for (int i = 0; i < STREAMS; i++)
    if (!streams[i]) {
      stream *s = *made = streams[i] = make(sizeof *s);
      s->number = i, s->last = &s->first, s->now.at[i] = host.at[i];
      return 0;
    }
  return 2;
}
status cuStreamDestroy_v2(stream *s) {
  if (s->first) fault("stream %d is destroyed while it has work", s->number);
  return streams[s->number] = NULL, drop(s);
}
status cuStreamQuery(stream *s) {
  if (s->recording) return CAPTURING;
  progress();
  if (s->first) return NOT_READY;
  return merge(&host, &s->now), forget(), 0;
}
status cuStreamSynchronize(stream *s) {
  for (double begun = seconds();;) {
    status now = cuStreamQuery(s);
    if (now != NOT_READY) return now;
    if (seconds() - begun > longest()) fault("stream %d is not done after %g seconds", s->number, longest());
    usleep(200);
  }
}
status cuCtxSynchronize(void) {
  status result = 0;
  for (int i = 0; i < STREAMS && !result; i++)
    if (streams[i]) result = cuStreamSynchronize(streams[i]);
  return result;
}

// ---- events ----

status cuEventCreate(event **made, unsigned flags) { return *made = make(sizeof **made), 0; }
status cuEventDestroy_v2(event *e) { return drop(e); }
status cuEventElapsedTime(float *time, event *from, event *to) {
  return from->happened && to->happened && from->happened == from->recorded && to->happened == to->recorded
             ? (*time = 0.5f, 0)
             : NOT_READY;
}

// The event that stands for one inside of a graph.
static event *inside(graph *g, event *e) {
  for (int i = 0; i < g->event_count; i++)
    if (g->events[i] == e) return g->inside[i];
  if (g->event_count == 256) fault("a graph has more than 256 events");
  g->events[g->event_count] = e;
  return g->inside[g->event_count++] = make(sizeof *e);
}

status cuEventRecord(event *e, stream *s) {
  e->graph = s->recording;
  if (e->graph) return queue(s, (op){.kind = RECORD, .event = inside(e->graph, e)});
  e->recorded++;
  return queue(s, (op){.kind = RECORD, .event = e});
}
status cuStreamWaitEvent(stream *s, event *e, unsigned flags) {
  // A stream that waits for what is recorded belongs to the graph from then on; nothing else may be waited for there.
  if (s->recording && s->recording != e->graph) return 905;
  if (e->graph && !s->recording) {
    graph *g = s->recording = e->graph;
    if (g->lane_count == 4) fault("a graph has more than 4 streams beside its own");
    g->lanes[g->lane_count++] = s;
  }
  if (s->recording) return queue(s, (op){.kind = WAIT, .event = inside(s->recording, e)});
  return e->recorded ? queue(s, (op){.kind = WAIT, .event = e, .ticket = e->recorded}) : 0;
}

// ---- graphs ----

status cuStreamBeginCapture_v2(stream *s, int mode) {
  graph *g = s->recording = make(sizeof *g);
  g->last = &g->first, g->origin = s;
  return 0;
}
// Each stream that has joined must be waited for at its end.
static int is_joined(const graph *g, const stream *lane) {
  const event *end = NULL;
  int joined = 0;
  for (const op *o = g->first; o; o = o->next) {
    if (o->stream == lane) end = o->kind == RECORD ? o->event : NULL, joined = 0;
    if (o->stream != lane && o->kind == WAIT && end && o->event == end) joined = 1;
  }
  return joined;
}
status cuGraphDestroy(graph *g) {
  for (op *o = g->first, *next; o; o = next) {
    next = o->next;
    if (o->exchange) drop_exchange(o->exchange);
    drop(o);
  }
  for (int i = 0; i < g->event_count; i++) drop(g->inside[i]);
  return drop(g);
}
status cuStreamEndCapture(stream *s, graph **made) {
  graph *g = s->recording;
  int joined = 1;
  s->recording = NULL;
  for (int i = 0; i < g->lane_count; i++) g->lanes[i]->recording = NULL, joined &= is_joined(g, g->lanes[i]);
  if (!joined) return cuGraphDestroy(g), *made = NULL, 904;
  return *made = g, 0;
}
status cuGraphInstantiateWithFlags(graph **exec, graph *g, uint64_t flags) { return live++, *exec = g, 0; }
status cuGraphExecDestroy(graph *g) { return live--, 0; }
static int graph_launches;
int fake_graph_launches(void) { return graph_launches; }
status cuGraphLaunch(graph *g, stream *s) {
  graph_launches++;
  for (op *o = g->first; o; o = o->next) {
    op again = *o;
    if (o->kind == RECORD) o->event->recorded++;
    if (o->kind == WAIT) again.ticket = o->event->recorded;
    if (o->exchange) {
      // The graph keeps its own.
      again.exchange = share_exchange(o->exchange);
    }
    append(o->stream == g->origin ? s : o->stream, &again);
  }
  return 0;
}
