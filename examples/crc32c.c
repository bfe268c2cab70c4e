/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C of files: many requests in flight, one doorbell for each batch, results in order. */
#include <stdio.h>
#include <stdlib.h>

#include "tandem/wd/wd.h"

enum { BLOCKS = 8, BLOCK = 1 << 16 };

/* Checks one block after another; each starts from the last result. */
static int checksum(struct wd_queue *q, FILE *file, const char *name) {
  static unsigned char block[BLOCK];
  uint64_t crc = 0;
  size_t length;
  while ((length = fread(block, 1, sizeof block, file)) > 0) {
    struct wd_request request = {
        .opcode = WD_OP_CRC32C, .src = block, .src_len = (uint32_t)length, .operand = crc};
    struct wd_request *done = NULL;
    int error = wd_send(q, &request);
    if (error == 0 && (error = wd_recv_sync(q, &done)) == 1) error = 0;
    if (error != 0 || done->status != TANDEM_STATUS_OK) {
      fprintf(stderr, "crc32c: %s: %s\n", name,
              error != 0 ? wd_strerror(error) : wd_strstatus(done->status));
      return 1;
    }
    crc = done->result;
  }
  printf("%08llx  %s\n", (unsigned long long)crc, name);
  return 0;
}

/* The known answer, eight times at once. */
static int self_check(struct wd_queue *q) {
  static const char text[] = "123456789";
  struct wd_request requests[BLOCKS] = {{0}};
  struct wd_request *pointers[BLOCKS];
  for (int i = 0; i < BLOCKS; ++i) {
    requests[i].opcode = WD_OP_CRC32C;
    requests[i].src = text;
    requests[i].src_len = sizeof text - 1;
    pointers[i] = &requests[i];
  }
  if (wd_send_batch(q, pointers, BLOCKS) != BLOCKS) return 1;
  wd_flush(q);
  for (int i = 0; i < BLOCKS; ++i) {
    struct wd_request *done = NULL;
    if (wd_recv(q, &done) != 1 || done != &requests[i] || done->result != 0xe3069283u) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  struct wd_queue q;
  const int error = wd_open(&q, "crc32c");
  if (error != 0) {
    fprintf(stderr, "crc32c: %s\n", wd_strerror(error));
    return 1;
  }
  int failures = self_check(&q);
  if (failures != 0) fprintf(stderr, "crc32c: the self-check failed\n");
  for (int i = 1; i < argc; ++i) {
    FILE *file = fopen(argv[i], "rb");
    if (file == NULL) {
      perror(argv[i]);
      ++failures;
      continue;
    }
    failures += checksum(&q, file, argv[i]);
    fclose(file);
  }
  wd_release_queue(&q);
  if (failures == 0 && argc == 1) puts("e3069283  (self-check)");
  return failures != 0;
}
