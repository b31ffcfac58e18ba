// y = x, 128 rows of 32 bf16, through shared memory: copied in, read back by the neighbouring thread, 16 bytes each.
extern "C" __global__ void __launch_bounds__(128) through_shared(const bf16* x, bf16* y) {
  int t = threadIdx.x, other = t ^ 1;
  for (int part = 0; part < 4; part++) {
    copy_async16(t * 64 + part * 16, x + t * 32 + part * 8, true);
  }
  copy_async_commit();
  copy_async_wait<0>();
  barrier();  // rows are there
  for (int part = 0; part < 4; part++) shared_to_global16(y + other * 32 + part * 8, other * 64 + part * 16);
}
