//! Matmuls of the graph on cuBLASLt: descriptions and algorithms are made once per shape when a plan is loaded.
//!
//! cuBLASLt thinks in columns: a matrix is stored column by column, a leading dimension apart, and may be taken
//! transposed. [`Problem`] says a matmul in these words; it is a pure function of sizes and strides.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::result::{self as lt, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as Compute, cublasLtMatmulDescAttributes_t as DescAttribute,
    cublasLtMatmulPreferenceAttributes_t as PrefAttribute, cudaDataType as DataType,
};
use cudarc::driver::sys::CUdeviceptr;
use linc_plan::{DType, Gemm};

use super::gpu::Gpu;
use super::library::{self, LibrarySpec, SearchPaths};
use super::memory::Memory;
use crate::DeviceError;

const LIBRARY: LibrarySpec = LibrarySpec {
    name: "cublasLt",
    variable: "LINC_CUBLASLT",
    majors: library::CUDA_MAJORS,
    pip_folders: &["cu13", "cublas"],
    remedy: "pip install nvidia-cublas, or install the CUDA toolkit",
    companions: &[],
};

/// Bytes of workspace: what NVIDIA recommends for Hopper.
const WORKSPACE: u64 = 32 << 20;

/// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`: a sum that is split over blocks is added up in f32 and rounded once, not
/// in the type of the result.
const REDUCTION: u32 = 2;

/// A matrix in memory, column by column.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Stored {
    /// Rows and columns as stored.
    rows: usize,
    cols: usize,
    /// Elements from one column to the next.
    leading: usize,
    /// The operand is the transpose of what is stored.
    transposed: bool,
}

/// How a matrix with strides (in elements) is stored column by column; nothing if neither axis is contiguous.
fn stored(rows: usize, cols: usize, (down, across): (usize, usize)) -> Option<Stored> {
    // Along an axis of one element, any stride will do.
    let columns = |rows: usize, cols: usize, down: usize, across: usize| {
        let leading = if cols == 1 { rows } else { across };
        ((down == 1 || rows == 1) && leading >= rows).then_some(leading)
    };
    if let Some(leading) = columns(rows, cols, down, across) {
        return Some(Stored { rows, cols, leading, transposed: false });
    }
    let leading = columns(cols, rows, across, down)?;
    Some(Stored { rows: cols, cols: rows, leading, transposed: true })
}

/// `C = op(A)·op(B)` in cuBLASLt's words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Problem {
    /// The product is computed transposed, `cᵀ = bᵀ·aᵀ`, because c is stored row by row: A is b and B is a.
    swapped: bool,
    a: Stored,
    b: Stored,
    c: Stored,
}

impl Problem {
    /// Nothing if an operand or the result has no contiguous axis.
    fn of(g: &Gemm) -> Option<Problem> {
        let flip = |(down, across): (usize, usize)| (across, down);
        let direct = stored(g.m, g.n, g.c_strides)?;
        if !direct.transposed {
            let (a, b) = (stored(g.m, g.k, g.a_strides)?, stored(g.k, g.n, g.b_strides)?);
            return Some(Problem { swapped: false, a, b, c: direct });
        }
        let a = stored(g.n, g.k, flip(g.b_strides))?;
        let b = stored(g.k, g.m, flip(g.a_strides))?;
        Some(Problem { swapped: true, a, b, c: Stored { transposed: false, ..direct } })
    }
}

/// Element types of operands and result.
type Types = (DType, DType);

/// What an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    problem: Problem,
    types: Types,
    accumulate: bool,
    /// Powers of two that divide the addresses of A, B and C.
    alignment: [u32; 3],
}

/// A matmul that is ready to run.
pub(super) struct Prepared {
    swapped: bool,
    accumulate: bool,
    desc: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: made in `Matmuls::make`, those that are not null, and used by no call any more.
        unsafe {
            for layout in self.layouts.into_iter().filter(|l| !l.is_null()) {
                let _ = lt::destroy_matrix_layout(layout);
            }
            let _ = lt::destroy_matmul_desc(self.desc);
        }
    }
}

/// The library, with everything that was prepared.
pub(super) struct Matmuls {
    gpu: Arc<Gpu>,
    handle: sys::cublasLtHandle_t,
    workspace: Memory,
    prepared: Vec<Prepared>,
    known: BTreeMap<Key, usize>,
}

impl Drop for Matmuls {
    fn drop(&mut self) {
        self.prepared.clear();
        if self.gpu.bind().is_ok() && self.gpu.synchronize().is_ok() {
            // SAFETY: made in `new`, and used by no call any more.
            let _ = unsafe { lt::destroy_handle(self.handle) };
        }
    }
}

fn failed(action: &'static str) -> impl Fn(CublasError) -> DeviceError {
    move |error| DeviceError::Driver { action, message: format!("cuBLASLt says {error}") }
}

impl Matmuls {
    /// Opens the library and allocates its workspace.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`]: where it was looked for, and what to install.
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Matmuls, DeviceError> {
        let missing =
            |e: String| DeviceError::Unsupported(format!("cuBLASLt, which multiplies matrices: {e}"));
        let found = library::open(&LIBRARY, &SearchPaths::of_environment(&LIBRARY)).map_err(missing)?;
        // Stays open, so that cudarc, which asks for bare names, gets it.
        std::mem::forget(found);
        // SAFETY: the initialisers of NVIDIA's libraries have no requirements.
        if !unsafe { sys::is_culib_present() } {
            return Err(missing(
                "it was found, but does not answer to its name; add its folder to LD_LIBRARY_PATH".into(),
            ));
        }
        // SAFETY: the function has no requirements. The number is 13_01_00 or 12_09_02, with the patch at the end.
        let version = unsafe { sys::cublasLtGetVersion() };
        gpu.accepts(((version / 10_000) as i32, (version / 100 % 100) as i32), "cuBLASLt")?;
        gpu.bind()?;
        let handle = lt::create_handle().map_err(failed("opening cuBLASLt"))?;
        let workspace = Memory::new(gpu, WORKSPACE).inspect_err(|_| {
            // SAFETY: just made, and used by nothing.
            let _ = unsafe { lt::destroy_handle(handle) };
        })?;
        Ok(Matmuls { gpu: Arc::clone(gpu), handle, workspace, prepared: vec![], known: BTreeMap::new() })
    }

    /// Prepares a matmul of operands at these addresses; returns its number.
    ///
    /// # Errors
    /// A text: what is not possible, or that no algorithm exists.
    pub(super) fn prepare(&mut self, g: &Gemm, at: [CUdeviceptr; 3]) -> Result<usize, String> {
        let types = (g.dtype, g.c_dtype);
        let known = matches!(
            types,
            (DType::F32, DType::F32)
                | (DType::Bf16, DType::F32 | DType::Bf16)
                | (DType::F16, DType::F32 | DType::F16)
        );
        if !known {
            return Err(format!(
                "a matmul of {:?} into {:?}; f32 gives f32, bf16 and f16 give their type or f32",
                types.0, types.1
            ));
        }
        let problem = Problem::of(g).ok_or_else(|| {
            let (a, b, c) = (g.a_strides, g.b_strides, g.c_strides);
            format!(
                "a matmul with strides {a:?}, {b:?} into {c:?}: cuBLASLt needs one contiguous axis of each"
            )
        })?;
        if [g.m, g.n, g.k].contains(&0) {
            return Err(format!("a matmul of {}x{}x{}, which is empty", g.m, g.n, g.k));
        }
        let [a, b, c] = at.map(|address| 1u32 << (address | 256).trailing_zeros());
        let alignment = if problem.swapped { [b, a, c] } else { [a, b, c] };
        let key = Key { problem, types, accumulate: g.accumulate, alignment };
        if let Some(index) = self.known.get(&key) {
            return Ok(*index);
        }
        let prepared = self
            .prepare_new(&key)
            .map_err(|e| format!("a matmul of {}x{}x{}: cuBLASLt says {e}", g.m, g.n, g.k))?;
        self.prepared.push(prepared);
        self.known.insert(key, self.prepared.len() - 1);
        Ok(self.prepared.len() - 1)
    }

    fn prepare_new(&self, key: &Key) -> Result<Prepared, CublasError> {
        // Sums in f32; f32 operands are not rounded to TF32.
        let desc = lt::create_matmul_desc(Compute::CUBLAS_COMPUTE_32F, DataType::CUDA_R_32F)?;
        let mut prepared = Prepared {
            swapped: key.problem.swapped,
            accumulate: key.accumulate,
            desc,
            layouts: [std::ptr::null_mut(); 3],
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        let Problem { a, b, c, .. } = key.problem;
        let (operand, result) = key.types;
        for (slot, (stored, dtype)) in
            prepared.layouts.iter_mut().zip([(a, operand), (b, operand), (c, result)])
        {
            let Stored { rows, cols, leading, .. } = stored;
            *slot = lt::create_matrix_layout(data_type(dtype), rows as u64, cols as u64, leading as i64)?;
        }
        let sides = [
            (DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, a.transposed),
            (DescAttribute::CUBLASLT_MATMUL_DESC_TRANSB, b.transposed),
        ];
        for (attribute, transposed) in sides {
            // CUBLAS_OP_N and CUBLAS_OP_T.
            let operation = i32::from(transposed);
            // SAFETY: the descriptor is live, and the value has the attribute's size.
            unsafe { lt::set_matmul_desc_attribute(desc, attribute, (&raw const operation).cast(), 4) }?;
        }
        let preference = Preference(lt::create_matmul_pref()?);
        let workspace = WORKSPACE;
        let [a, b, c] = key.alignment;
        // Without the alignments, cuBLASLt counts on 256 bytes.
        let numbers = [
            (PrefAttribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, REDUCTION),
            (PrefAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a),
            (PrefAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b),
            (PrefAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
            (PrefAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c),
        ];
        // SAFETY: preference, descriptor and layouts are live, and each value has its attribute's size.
        unsafe {
            let attribute = PrefAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            lt::set_matmul_pref_attribute(preference.0, attribute, (&raw const workspace).cast(), 8)?;
            for (attribute, number) in numbers {
                lt::set_matmul_pref_attribute(preference.0, attribute, (&raw const number).cast(), 4)?;
            }
            let [a, b, c] = prepared.layouts;
            let best = lt::get_matmul_algo_heuristic(self.handle, desc, a, b, c, c, preference.0)?;
            prepared.algorithm = best.algo;
        }
        Ok(prepared)
    }

    /// Queues a prepared matmul.
    ///
    /// # Safety
    /// The operands are those that the matmul was prepared for, in live memory of this GPU, whose context is bound.
    pub(super) unsafe fn run(&self, index: usize, [a, b, c]: [CUdeviceptr; 3]) -> Result<(), DeviceError> {
        let prepared = &self.prepared[index];
        let (a, b) = if prepared.swapped { (b, a) } else { (a, b) };
        let [a_layout, b_layout, c_layout] = prepared.layouts;
        let (alpha, beta) = (1f32, if prepared.accumulate { 1f32 } else { 0.0 });
        // SAFETY: as the caller promises; numbers and descriptions live over the call.
        unsafe {
            lt::matmul(
                self.handle,
                prepared.desc,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                a as *const c_void,
                a_layout,
                b as *const c_void,
                b_layout,
                c as *const c_void,
                c_layout,
                c as *mut c_void,
                c_layout,
                &raw const prepared.algorithm,
                self.workspace.start() as *mut c_void,
                WORKSPACE as usize,
                self.gpu.stream.cu_stream().cast(),
            )
        }
        .map_err(failed("a matmul"))
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by the owner of this value, and used by no call any more.
        let _ = unsafe { lt::destroy_matmul_pref(self.0) };
    }
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::CUDA_R_32F,
        DType::Bf16 => DataType::CUDA_R_16BF,
        DType::F16 => DataType::CUDA_R_16F,
        DType::I32 => DataType::CUDA_R_32I,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_plan::Ref;

    /// What cuBLASLt does: `C = op(A)·op(B)`, all stored column by column.
    fn multiply(p: &Problem, a: &[f64], b: &[f64], c: &mut [f64]) {
        let (a, b) = if p.swapped { (b, a) } else { (a, b) };
        let at = |s: &Stored, x: &[f64], row: usize, col: usize| {
            let (row, col) = if s.transposed { (col, row) } else { (row, col) };
            assert!(row < s.rows && col < s.cols && s.leading >= s.rows);
            x[col * s.leading + row]
        };
        let inner = if p.a.transposed { p.a.rows } else { p.a.cols };
        for col in 0..p.c.cols {
            for row in 0..p.c.rows {
                let products = (0..inner).map(|k| at(&p.a, a, row, k) * at(&p.b, b, k, col));
                c[col * p.c.leading + row] = products.sum();
            }
        }
    }

    fn gemm((m, n, k): (usize, usize, usize), strides: [(usize, usize); 3]) -> Gemm {
        let at = Ref { buffer: 0, offset: 0 };
        let [a_strides, b_strides, c_strides] = strides;
        let dtype = DType::F32;
        Gemm {
            m,
            n,
            k,
            a: at,
            a_strides,
            b: at,
            b_strides,
            c: at,
            c_strides,
            accumulate: false,
            dtype,
            c_dtype: dtype,
        }
    }

    /// Strides of four storages of a matrix: by rows or columns, dense or as a part of a wider one.
    fn storages(rows: usize, cols: usize) -> [(usize, usize); 4] {
        [(cols, 1), (cols + 3, 1), (1, rows), (1, rows + 5)]
    }

    #[test]
    fn every_layout_gives_the_product() {
        for (m, n, k) in [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 7), (1, 6, 1), (1, 1, 1)] {
            for a_strides in storages(m, k) {
                for b_strides in storages(k, n) {
                    for c_strides in storages(m, n) {
                        let g = gemm((m, n, k), [a_strides, b_strides, c_strides]);
                        let p = Problem::of(&g).expect("one axis is contiguous");
                        let (a, b): (Vec<f64>, Vec<f64>) = (
                            (0..200).map(|i| f64::from(i % 7)).collect(),
                            (0..200).map(|i| f64::from(i % 5)).collect(),
                        );
                        let mut c = vec![f64::NAN; 200];
                        multiply(&p, &a, &b, &mut c);
                        for i in 0..m {
                            for j in 0..n {
                                let products = (0..k).map(|p| {
                                    a[i * a_strides.0 + p * a_strides.1]
                                        * b[p * b_strides.0 + j * b_strides.1]
                                });
                                let value = c[i * c_strides.0 + j * c_strides.1];
                                assert_eq!(value, products.sum::<f64>(), "{g:?} {p:?}");
                            }
                        }
                        // Nothing else was written.
                        assert_eq!(c.iter().filter(|x| !x.is_nan()).count(), m * n, "{g:?} {p:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_no_contiguous_axis_is_refused() {
        let dense = (4, 1);
        for strides in
            [[(8, 2), dense, dense], [dense, (8, 2), dense], [dense, dense, (8, 2)], [(0, 1), dense, dense]]
        {
            assert_eq!(Problem::of(&gemm((4, 4, 4), strides)), None, "{strides:?}");
        }
        // A row of anything is contiguous along its one column.
        assert!(Problem::of(&gemm((1, 4, 4), [(99, 2), dense, dense])).is_some());
    }
}
