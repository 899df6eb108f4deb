/* A consumer that only counts: librdkafka, every partition into one queue, taken in batches; no payload is looked at.
 *
 * It is the ceiling of what a consumer built on librdkafka can take from this broker, in C because a Python loop over messages would
 * measure Python. The settings of reading are Tidegate's own (src/source/kafka/client.rs), so that the two differ in the work alone.
 *
 * usage: bare BOOTSTRAP TOPIC PARTITIONS EVENTS PASSES      prints the lines that job.py describes, without rows
 *
 * It is linked with the library inside the Python package of confluent-kafka, which comes without headers: what is used of librdkafka's
 * stable interface (rdkafka.h) is declared here.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;

typedef struct {
  int err; /* 0: a record */
  rd_kafka_topic_t *topic;
  int32_t partition;
  void *payload;
  size_t len;
  void *key;
  size_t key_len;
  int64_t offset;
  void *private_;
} rd_kafka_message_t;

enum { RD_KAFKA_CONSUMER = 1, BATCH = 10000, OLDEST = -2, PATIENCE_MS = 20000, ERROR_SIZE = 512 };

const char *rd_kafka_version_str(void);
rd_kafka_conf_t *rd_kafka_conf_new(void);
int rd_kafka_conf_set(rd_kafka_conf_t *, const char *name, const char *value, char *error, size_t size);
rd_kafka_t *rd_kafka_new(int type, rd_kafka_conf_t *, char *error, size_t size);
void rd_kafka_destroy(rd_kafka_t *);
rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *topic, void *conf);
void rd_kafka_topic_destroy(rd_kafka_topic_t *);
rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *);
void rd_kafka_queue_destroy(rd_kafka_queue_t *);
int rd_kafka_consume_start_queue(rd_kafka_topic_t *, int32_t partition, int64_t offset, rd_kafka_queue_t *);
int rd_kafka_consume_stop(rd_kafka_topic_t *, int32_t partition);
ssize_t rd_kafka_consume_batch_queue(rd_kafka_queue_t *, int timeout_ms, rd_kafka_message_t **messages, size_t size);
void rd_kafka_message_destroy(rd_kafka_message_t *);
const char *rd_kafka_err2str(int);

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void pass(const char *bootstrap, const char *topic_name, int partitions, long events) {
  static const char *const settings[][2] = {{"fetch.wait.max.ms", "15"}, {"queued.max.messages.kbytes", "65536"}, {"log_level", "3"}};
  static rd_kafka_message_t *messages[BATCH];
  char error[ERROR_SIZE];
  printf("{\"is\": \"began\", \"at\": %.6f}\n", now());
  fflush(stdout);
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  if (rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, error, sizeof error)) fail("bootstrap.servers", error);
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
    if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], error, sizeof error)) fail(settings[i][0], error);
  rd_kafka_t *client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof error);
  if (!client) fail("the consumer can't be made", error);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(client, topic_name, NULL);
  rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
  for (int partition = 0; partition < partitions; partition++)
    if (rd_kafka_consume_start_queue(topic, partition, OLDEST, queue)) fail("a partition can't be read", topic_name);
  long seen = 0, bytes = 0;
  while (seen < events) {
    /* It waits until it has all that it may take. */
    size_t most = events - seen < BATCH ? (size_t)(events - seen) : BATCH;
    ssize_t many = rd_kafka_consume_batch_queue(queue, PATIENCE_MS, messages, most);
    if (many <= 0) fail("nothing came for 20 s", topic_name);
    for (ssize_t i = 0; i < many; i++) {
      if (messages[i]->err) fail("the topic can't be read", rd_kafka_err2str(messages[i]->err));
      bytes += messages[i]->len;
      rd_kafka_message_destroy(messages[i]);
    }
    seen += many;
  }
  printf("{\"is\": \"done\", \"at\": %.6f, \"bytes\": %ld}\n", now(), bytes);
  fflush(stdout);
  for (int partition = 0; partition < partitions; partition++) rd_kafka_consume_stop(topic, partition);
  rd_kafka_queue_destroy(queue);
  rd_kafka_topic_destroy(topic);
  rd_kafka_destroy(client);
}

int main(int many, char **told) {
  if (many != 6) fail("usage", "bare BOOTSTRAP TOPIC PARTITIONS EVENTS PASSES");
  printf("{\"is\": \"ready\", \"at\": %.6f, \"version\": \"librdkafka %s\"}\n", now(), rd_kafka_version_str());
  fflush(stdout);
  for (int i = 0; i < atoi(told[5]); i++) pass(told[1], told[2], atoi(told[3]), atol(told[4]));
  return 0;
}
