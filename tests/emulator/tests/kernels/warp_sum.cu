// y[warp] = sum of 32 elements of x, added up by exchange between lanes; z[i] = x of the lane that is 3 ahead.
extern "C" __global__ void __launch_bounds__(128) warp_sum(const bf16* x, float* y, float* z) {
  int t = threadIdx.x, lane = t % 32;
  float v;
  load<1>(&v, x + t);
  float ahead = shuffle(v, (lane + 3) % 32);
  store<1>(z + t, &ahead);
  for (int mask = 16; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  if (lane == 0) store<1>(y + t / 32, &v);
}
