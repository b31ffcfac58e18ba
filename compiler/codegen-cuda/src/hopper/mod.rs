//! What only Hopper has, as text: products of warpgroups (`wgmma`), tile copies by TMA, and the
//! mbarriers that say whose turn it is. Emission says where these lines go.

pub(crate) mod instructions;
pub(crate) mod pipeline;
pub(crate) mod tensor_copies;
pub(crate) mod wgmma;
