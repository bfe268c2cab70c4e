/* SPDX-License-Identifier: Apache-2.0 */
/* Copies a string with an accelerator: open a queue, send plain pointers, wait, look. */
#include <stdio.h>
#include <string.h>

#include "tandem/wd/wd.h"

int main(void) {
  struct wd_queue q;
  int error = wd_open(&q, "memory");
  if (error != 0) {
    fprintf(stderr, "copy: %s\n", wd_strerror(error));
    return 1;
  }

  char from[] = "any pointer will do";
  char to[sizeof from] = "";
  struct wd_request request = {
      .opcode = WD_OP_COPY, .src = from, .dst = to, .src_len = sizeof from, .dst_len = sizeof to};
  struct wd_request *done = NULL;
  if ((error = wd_send(&q, &request)) != 0 || (error = wd_recv_sync(&q, &done)) != 1) {
    fprintf(stderr, "copy: %s\n", wd_strerror(error));
    return 1;
  }
  if (done->status != TANDEM_STATUS_OK) {
    fprintf(stderr, "copy: %s\n", wd_strstatus(done->status));
    return 1;
  }
  printf("%s: %u bytes on %s: %s\n", to, done->done, q.device,
         strcmp(from, to) == 0 ? "equal" : "DIFFERENT");
  wd_release_queue(&q);
  return strcmp(from, to) != 0;
}
