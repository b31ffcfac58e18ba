"""Configuration of the models of modeling_linc.py."""

from transformers import PretrainedConfig


class LincConfig(PretrainedConfig):
    """The numbers of a Llama model, and which of its layers have linear attention.

    `layer_types` has "full_attention" or "linear_attention" for each layer. `linc["linear_attention"]` has the options of the
    linear layers: whether q and k are rotated by position (`rope`), and what multiplies them before their softmaxes
    (`temperature`); `chunk` is how linc cuts a sequence, which changes nothing but the last bits.
    """

    model_type = "linc"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    def __init__(
        self,
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        initializer_range=0.02,
        rope_parameters=None,
        layer_types=None,
        linc=None,
        use_cache=True,
        tie_word_embeddings=False,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": 10000.0}
        self.layer_types = layer_types or ["full_attention"] * num_hidden_layers
        self.linc = linc or {"linear_attention": {"rope": True, "temperature": 3.0}}
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
