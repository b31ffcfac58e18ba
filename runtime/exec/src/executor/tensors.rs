//! Persistent tensors by name: what there is, and its contents, of which a rank may have a shard.

use linc_device::available_memory::zeroed;
use linc_plan::{Binding, DType, Role, Shard};

use super::{Executor, check_size, missing};
use crate::{ExecError, init};

/// A persistent tensor.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorInfo {
    /// The binding's name in the plan: for parameters, that of checkpoints.
    pub name: String,
    /// Parameter, state or table.
    pub role: Role,
    /// Sizes of the axes of the whole tensor, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// What of it is here, if that is not all of it.
    pub shard: Option<Shard>,
}

/// Bytes that are rounded or cleared at once.
const ROUNDED: usize = 16 << 20;

impl Executor {
    /// Persistent tensors of the wanted roles, by name.
    pub fn tensors(&self, wanted: impl Fn(&Role) -> bool) -> Vec<TensorInfo> {
        let info = |b: &Binding| TensorInfo {
            name: b.name.clone(),
            role: b.role.clone(),
            shape: b.shape.clone(),
            dtype: b.dtype,
            shard: b.shard,
        };
        self.persistent.values().map(|(b, _)| b).filter(|b| wanted(&b.role)).map(info).collect()
    }

    /// Contents of a persistent tensor, little-endian; where a shard of it is here, those of the shard.
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if there is none of that name.
    pub fn read_tensor(&self, name: &str) -> Result<Vec<u8>, ExecError> {
        let (binding, at) = self.persistent.get(name).ok_or_else(|| missing(name))?;
        let mut bytes = zeroed(binding.bytes() as usize)?;
        self.device.read(self.arena, *at, &mut bytes)?;
        Ok(bytes)
    }

    /// Replaces the contents of a persistent tensor. Where a shard of it is here, the bytes of the whole tensor may be given, of
    /// which the shard's are taken, or those alone. Where it is of bf16 or f16, the whole may be given as f32, and is rounded.
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if there is none of that name and size.
    pub fn write_tensor(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExecError> {
        let (binding, at) = self.persistent.get(name).ok_or_else(|| missing(name))?;
        self.used = true;
        let (device, arena) = (&mut self.device, self.arena);
        let whole: usize = binding.shape.iter().product();
        let (start, len) = binding.shard.map_or((0, whole), |shard| (shard.start, shard.len));
        let is_wide = bytes.len() == size_of::<f32>() * whole;
        if is_wide && matches!(binding.dtype, DType::Bf16 | DType::F16) {
            let mut at = *at;
            for part in bytes[size_of::<f32>() * start..size_of::<f32>() * (start + len)].chunks(ROUNDED) {
                let values: Vec<f32> = part.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
                let mut rounded = vec![0; part.len() / 2];
                init::store(binding.dtype, &values, &mut rounded);
                device.write(arena, at, &rounded)?;
                at += rounded.len() as u64;
            }
            return Ok(());
        }
        let width = binding.dtype.bytes() as usize;
        if bytes.len() == width * whole {
            return Ok(device.write(arena, *at, &bytes[width * start..width * (start + len)])?);
        }
        check_size(binding, bytes.len())?;
        Ok(device.write(arena, *at, bytes)?)
    }

    /// Fills a persistent tensor with zeros.
    ///
    /// # Errors
    /// [`ExecError::Tensor`] if there is none of that name.
    pub fn clear_tensor(&mut self, name: &str) -> Result<(), ExecError> {
        let (binding, at) = self.persistent.get(name).ok_or_else(|| missing(name))?;
        let (mut at, end) = (*at, *at + binding.bytes());
        let zeros = zeroed(ROUNDED.min(binding.bytes() as usize))?;
        while at < end {
            let part = zeros.len().min((end - at) as usize);
            self.device.write(self.arena, at, &zeros[..part])?;
            at += part as u64;
        }
        Ok(())
    }
}
