// y = 2 x + 1 over `COUNT` elements, four per thread and access, with a ragged end.
constexpr int COUNT = 1000;

extern "C" __global__ void __launch_bounds__(64) scale(const float* x, float* y) {
  index first = ((index)blockIdx.x * 64 + threadIdx.x) * 4;
  if (first < COUNT) {
    float v[4];
    load<4>(v, x + first);
    for (int i = 0; i < 4; i++) v[i] = fmaf(2.0f, v[i], 1.0f);
    store<4>(y + first, v);
  }
}
