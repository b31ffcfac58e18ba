// What each function of the prelude makes of each element of x, functions one after the other in y.
constexpr int COUNT = 32;

extern "C" __global__ void __launch_bounds__(32) numerics(const float* x, float* y, bf16* narrow, int* bits) {
  int t = threadIdx.x;
  float v;
  load<1>(&v, x + t);
  float results[] = {exp2_fast(v), recip(v), rsqrt(v), round_bf16(v), exp_fast(v), sigmoid(v)};
  for (int i = 0; i < 6; i++) store<1>(y + i * COUNT + t, results + i);
  store<1>(narrow + t, &v);
  int packed = (int)pack_bf16(v, -v);
  store<1>(bits + t, &packed);
}
