"""Llama models in which some layers have linear attention, as linc exports them. Needs torch and transformers only.

Linear layers have causal efficient attention (Shen et al., arXiv 1812.01243). With p_t the softmax of a query over its features,
and L_t[d] the logarithm of the sum of exp(k_s[d]) over s <= t,

    out_t = sum over s <= t of  v_s * sum over d of  p_t[d] * exp(k_s[d] - L_t[d])

What a token needs of all tokens before it is a state of one row for each feature, whatever their number.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from math import ceil, log2, pi
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_linc import LincConfig

# In place of the keys of padding: exp(NEVER - k) is 0 for every k, and there is no infinity whose difference is no number.
NEVER = -1e30

# Tokens that linear attention takes at once.
CHUNK = 32

# What this version of transformers calls the cache of an output. Arguments have either name.
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"


class LincCache(Cache):
    """Keys and values of softmax layers, and states of linear ones.

    A state is one f32 tensor `[batch, kv_heads, head_dim, 2 + head_dim]`: for each feature the largest key so far, the sum of
    exp(key - largest), and the sum of exp(key - largest) * value. It has all tokens in it and none by itself, so that it
    cannot be cut back to fewer.
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, config):
        # Without the parent's, whose arguments differ from version to version.
        self.layers = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self.layer_types = config.layer_types
        self.reset()

    def reset(self):
        self.tokens = 0
        self.entries = [() for _ in self.layer_types]

    @property
    def is_linear(self):
        return [kind == "linear_attention" for kind in self.layer_types]

    def __len__(self):
        return len(self.entries)

    def get_seq_length(self, layer_idx=0):
        return self.tokens

    def get_max_cache_shape(self, layer_idx=0):
        return -1

    def get_max_length(self, layer_idx=0):
        return -1

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        old = self.entries[layer_idx] or (key_states[:, :, :0], value_states[:, :, :0])
        new = (key_states, value_states)
        self.entries[layer_idx] = tuple(torch.cat(pair, dim=2) for pair in zip(old, new))
        return self.entries[layer_idx]

    def state(self, layer_idx):
        """The state of a linear layer, or None before its first token."""
        return self.entries[layer_idx][0] if self.entries[layer_idx] else None

    def update_state(self, state, layer_idx):
        self.entries[layer_idx] = (state,)

    def _apply(self, change):
        self.entries = [tuple(change(tensor) for tensor in entry) for entry in self.entries]

    def reorder_cache(self, beam_idx):
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices):
        self._apply(lambda tensor: tensor[indices.to(tensor.device)])

    def batch_repeat_interleave(self, repeats):
        self._apply(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def crop(self, *args, **kwargs):
        raise ValueError("the state of linear attention cannot be cropped: assisted decoding needs another model")


@lru_cache(maxsize=8)
def rotary_table(head_dim, theta, scaling, length):
    """Cosines and sines `[length, head_dim / 2]`, in double precision until they are rounded."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)
    scaling = dict(scaling)
    kind = scaling.get("rope_type", "default")
    if kind == "linear":
        frequencies = frequencies / scaling["factor"]
    elif kind == "llama3":
        # Waves that turn seldom within the original length are slowed down, those that turn often kept.
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies * (kept + (1 - kept) / scaling["factor"])
    elif kind != "default":
        raise ValueError(f"rope_type {kind!r} is not known")
    angles = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """Turns features i and i + head_dim / 2 of `x` `[batch, heads, tokens, head_dim]` together."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def efficient_attention(q, k, v, state):
    """Causal efficient attention of q `[batch, heads, tokens, d]` to k and v, which may have fewer heads, after the tokens of a
    state. Returns the output and the new state. No exponent is positive, so nothing overflows for any keys.
    """
    groups = q.shape[1] // k.shape[1]
    p = q.softmax(dim=-1).unflatten(1, (-1, groups))
    largest, total, sums = state[..., 0], state[..., 1], state[..., 2:]
    out = []
    for p, k, v in zip(p.split(CHUNK, dim=3), k.split(CHUNK, dim=2), v.split(CHUNK, dim=2)):
        # [batch, kv_heads, tokens, d]: L of each token.
        seen = torch.logaddexp((largest + total.log())[:, :, None], k.logcumsumexp(dim=2))
        # The tokens before the chunk.
        before = p * (largest[:, :, None] - seen).exp()[:, :, None]
        # Pairs within it, [batch, kv_heads, query, key, d].
        later = torch.ones(k.shape[2], k.shape[2], dtype=torch.bool, device=k.device).triu(1)
        pairs = (k[:, :, None] - seen[:, :, :, None]).masked_fill(later[..., None], -torch.inf).exp()
        weights = torch.einsum("bgrtd,bgtsd->bgrts", p, pairs)
        out.append(before @ sums[:, :, None] + weights @ v[:, :, None])
        # The state after it.
        new = torch.maximum(largest, k.amax(dim=2))
        keep, share = (largest - new).exp(), (k - new[:, :, None]).exp()
        total = total * keep + share.sum(dim=2)
        sums = sums * keep[..., None] + share.transpose(2, 3) @ v
        largest = new
    state = torch.cat([largest[..., None], total[..., None], sums], dim=-1)
    return torch.cat(out, dim=3).flatten(1, 2), state


@dataclass
class Context:
    """What all layers need to know of the tokens of a call."""

    cos: torch.Tensor
    sin: torch.Tensor
    # Which keys a query sees, [batch or 1, 1, queries, keys]; None for all up to itself, where there are none before the call.
    visible: Optional[torch.Tensor]
    # Which of the call's tokens are padding, [batch, tokens]; None for none.
    padding: Optional[torch.Tensor]
    cache: Optional[LincCache]

    def to(self, device):
        """The same for a layer that is on another device than the one before it."""
        if self.cos.device == device:
            return self
        tensors = (self.cos, self.sin, self.visible, self.padding)
        return Context(*(None if tensor is None else tensor.to(device) for tensor in tensors), self.cache)


class LincRMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class LincAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.is_linear = config.layer_types[layer_idx] == "linear_attention"
        self.options = config.linc["linear_attention"]
        q, kv = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, q, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(q, config.hidden_size, bias=False)

    def forward(self, x, context):
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if not self.is_linear or self.options["rope"]:
            q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
        out = self.linear(q, k, v, context) if self.is_linear else self.softmax(q, k, v, context)
        return self.o_proj(out.to(x.dtype).transpose(1, 2).flatten(2))

    def softmax(self, q, k, v, context):
        if context.cache is not None:
            k, v = context.cache.update(k, v, self.layer_idx)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        visible = context.visible
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None)

    def linear(self, q, k, v, context):
        q, k = self.options["temperature"] * q.float(), self.options["temperature"] * k.float()
        if context.padding is not None:
            k = k.masked_fill(context.padding[:, None, :, None], NEVER)
        state = context.cache.state(self.layer_idx) if context.cache is not None else None
        if state is None:
            state = k.new_zeros(*k.shape[:2], self.head_dim, 2 + self.head_dim)
            state[..., 0] = NEVER
        out, state = efficient_attention(q, k, v.float(), state)
        if context.cache is not None:
            context.cache.update_state(state, self.layer_idx)
        return out


class LincMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LincDecoderLayer(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = LincAttention(config, layer_idx)
        self.mlp = LincMLP(config)
        self.input_layernorm = LincRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = LincRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, context):
        context = context.to(x.device)
        x = x + self.self_attn(self.input_layernorm(x), context)
        return x + self.mlp(self.post_attention_layernorm(x))


class LincModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LincDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = LincRMSNorm(config.hidden_size, config.rms_norm_eps)


class LincForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = LincConfig
    base_model_prefix = "model"
    _no_split_modules = ["LincDecoderLayer"]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _supports_sdpa = True
    # No step back to fewer tokens, as assisted decoding takes.
    _is_stateful = True

    def __init__(self, config):
        super().__init__(config)
        self.model = LincModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, LincRMSNorm):
            nn.init.ones_(module.weight)

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def _context(self, x, attention_mask, position_ids, cache):
        tokens, past = x.shape[1], cache.get_seq_length() if cache is not None else 0
        real = None
        if attention_mask is not None:
            if attention_mask.shape != (x.shape[0], past + tokens):
                raise ValueError(
                    f"attention_mask is {list(attention_mask.shape)}; expected [batch, tokens], with the tokens of the cache: "
                    f"[{x.shape[0]}, {past + tokens}]"
                )
            real = attention_mask.to(device=x.device, dtype=torch.bool)
            real = None if real.all() else real
        if position_ids is None and real is None:
            position_ids = torch.arange(past, past + tokens, device=x.device)[None]
        elif position_ids is None:
            position_ids = (real.long().cumsum(dim=-1) - 1).clamp(min=0)[:, past:]
        rope = self.config.rope_parameters
        scaling = tuple(sorted((key, value) for key, value in rope.items() if value is not None))
        length = 1 << ceil(log2(int(position_ids.max()) + 1))
        table = rotary_table(self.config.head_dim, rope["rope_theta"], scaling, length)
        cos, sin = (part.to(x.device)[position_ids][:, None] for part in table)
        visible = None
        if past > 0 or real is not None:
            queries, keys = torch.arange(past, past + tokens, device=x.device), torch.arange(past + tokens, device=x.device)
            visible = (keys[None] <= queries[:, None])[None, None]
            if real is not None:
                # Padding sees itself, since a softmax over nothing is no number.
                visible = (visible & real[:, None, None]) | (keys[None] == queries[:, None])
        padding = None if real is None else ~real[:, past:]
        return Context(cos, sin, visible, padding, cache)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        cache=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_hidden_states=None,
        return_dict=None,
        logits_to_keep=0,
        **kwargs,
    ):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = cache if cache is not None else past_key_values
        use_cache = self.config.use_cache and not self.training if use_cache is None else use_cache
        if cache is None and use_cache:
            cache = LincCache(self.config)
        if cache is not None and not isinstance(cache, LincCache):
            raise ValueError(f"the cache is a {type(cache).__name__}; linear layers need a LincCache, which comes of itself")
        context = self._context(x, attention_mask, position_ids, cache)
        hidden_states = [x]
        for layer in self.model.layers:
            x = layer(x, context)
            hidden_states.append(x)
        if cache is not None:
            cache.tokens += x.shape[1]
        x = hidden_states[-1] = self.model.norm(x)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x if isinstance(logits_to_keep, int) and logits_to_keep == 0 else x[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        hidden_states = tuple(hidden_states) if output_hidden_states else None
        output = CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=hidden_states, **{CACHE: cache})
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self,
        input_ids,
        cache=None,
        past_key_values=None,
        attention_mask=None,
        inputs_embeds=None,
        position_ids=None,
        use_cache=None,
        logits_to_keep=0,
        **kwargs,
    ):
        cache = cache if cache is not None else past_key_values
        past = cache.get_seq_length() if cache is not None else 0
        if inputs_embeds is not None and past == 0:
            inputs = {"inputs_embeds": inputs_embeds}
        else:
            # What the cache has is not computed again. A prompt of embeddings has no ids, but a place in the mask.
            given = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
            inputs = {"input_ids": input_ids[:, -max(given - past, 1) :]}
        if position_ids is not None:
            position_ids = position_ids[:, past:]
        return {
            **inputs,
            "cache": cache,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }


__all__ = ["LincForCausalLM"]
