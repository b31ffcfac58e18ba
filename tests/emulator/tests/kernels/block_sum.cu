// y[block] = sum of the block's 256 elements of x, as a tree in shared memory; then y[block + 4] = the same tree again
// over the squares, in the same memory.
extern "C" __global__ void __launch_bounds__(256) block_sum(const float* x, float* y) {
  int t = threadIdx.x;
  float v;
  load<1>(&v, x + (index)blockIdx.x * 256 + t);
  for (int pass = 0; pass < 2; pass++) {
    shared_store(t * 4, pass == 0 ? v : v * v);
    for (int half = 128; half > 0; half /= 2) {
      barrier();  // before a level
      if (t < half) shared_store(t * 4, shared_load(t * 4) + shared_load((t + half) * 4));
    }
    barrier();  // before the result
    float sum = shared_load(0);
    if (t == pass) store<1>(y + blockIdx.x + pass * 4, &sum);
    barrier();  // before the next pass
  }
}
