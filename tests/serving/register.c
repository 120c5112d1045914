/* Register one 2-D pair with a SavedModel through TensorFlow's C API: no Python, no Keras.
 *
 * register FOLDER MOVING_OP FIXED_OP DISPLACEMENT_OP DISPLACEMENT_INDEX HEIGHT WIDTH < moving,fixed > displacement
 * Images and displacement are raw float32. */
#include <stdio.h>
#include <stdlib.h>

#include "tensorflow/c/c_api.h"

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

static TF_Output output(TF_Graph *graph, const char *name, int index) {
  TF_Output found = {TF_GraphOperationByName(graph, name), index};
  if (found.oper) return found;
  fprintf(stderr, "no operation %s in the graph\n", name);
  exit(1);
}

static TF_Tensor *read_image(long long height, long long width) {
  int64_t shape[] = {1, height, width, 1};
  size_t count = (size_t)(height * width);
  TF_Tensor *image = TF_AllocateTensor(TF_FLOAT, shape, 4, count * sizeof(float));
  if (fread(TF_TensorData(image), sizeof(float), count, stdin) == count) return image;
  fprintf(stderr, "standard input ended early\n");
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 8) return 2;
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "load");

  TF_Output inputs[] = {output(graph, argv[2], 0), output(graph, argv[3], 0)};
  TF_Output displacement = output(graph, argv[4], atoi(argv[5]));
  long long height = atoll(argv[6]), width = atoll(argv[7]);
  TF_Tensor *images[] = {read_image(height, width), read_image(height, width)};
  TF_Tensor *result = NULL;
  TF_SessionRun(session, NULL, inputs, images, 2, &displacement, &result, 1, NULL, 0, NULL, status);
  check(status, "run");
  fwrite(TF_TensorData(result), 1, TF_TensorByteSize(result), stdout);
  return 0;
}
