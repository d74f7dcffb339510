"""The Keras model that all tasks share: default inputs, files, and losses of `fit`."""

from typing import Any, ClassVar

import keras
import tensorflow as tf

from bert_tf.modeling import model_inputs
from bert_tf.modeling.layers import LayerSettings, freeze, named_layers

Tensors = Any  # A tensor, or a structure of them, as Keras hands it on.


class BertModel(keras.Model):
    """A functional model of BERT.

    It is called with a dict of int32 `input_ids`, `input_mask`, `segment_ids`,
    `positions` [B, S] and `next_sentence_positions` [B, K], or with `input_ids` alone.
    transformers' names `attention_mask`, `token_type_ids` and `position_ids` are taken
    too. What is left out has a default: `input_mask` is 1 and `segment_ids` 0
    everywhere, `positions` count from 0 in each sequence, `next_sentence_positions` are
    0 (of packed rows they must be given), and `dropout_seed` [B, 3] is drawn from the
    model's generator for each call.

    `save` and `keras.models.load_model` work, and `model.from_config(
    model.get_config())` is a copy with new weights; a clone by `clone_model` is a plain
    functional model, which needs all inputs. Compiled without a loss, `fit` uses that
    of the task, if it has one.

    Attributes:
      labels: Names that the inputs may hold beside those of the graph, for `fit`.
    """

    labels: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        *,
        name: str,
        settings: LayerSettings,
        **arguments: object,
    ) -> None:
        """Wires the graph.

        Args:
          inputs: Symbolic inputs.
          outputs: Symbolic outputs.
          name: Name of the model.
          settings: What its layers share.
          arguments: The other arguments of the function that builds it.
        """
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        # Inputs may be missing or have other names, so Keras must not count them.
        self.input_spec = None
        # By which `compile` scales the loss of float16.
        self.dtype_policy = settings.backends.policy.keras_name
        self.supports_jit = settings.supports_jit
        self._settings = settings
        self._arguments = arguments

    # Calls.

    def __call__(self, inputs: Tensors, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        """See the class.

        Raises:
          ValueError: if the inputs are not those of the class.
        """
        # Here, since Keras adds lines about all arguments to errors in `call`.
        return super().__call__(self.checked(inputs), *arguments, **settings)

    def call(
        self, inputs: Tensors, training: bool | None = None, mask: Tensors = None
    ) -> dict[str, tf.Tensor]:
        """The outputs, with defaults for what is left out."""
        del mask  # Keras's masks of layers; BERT has an input.
        given = self.checked(inputs)
        ids = given["input_ids"]
        # In this order: positions follow from the mask.
        defaults = {
            "input_mask": lambda: tf.ones_like(ids),
            "segment_ids": lambda: tf.zeros_like(ids),
            "positions": lambda: model_inputs.default_positions(given["input_mask"]),
            "next_sentence_positions": lambda: model_inputs.default_starts(
                given["input_mask"]
            ),
            "dropout_seed": lambda: self._default_seed(ids, training),
        }
        if "segment_ids" in given:
            size = self._settings.config.type_vocab_size
            given["segment_ids"] = model_inputs.checked_segments(
                given["segment_ids"], size
            )
        for name, default in defaults.items():
            if name in self.input and name not in given:
                given[name] = default()
        ordered = {name: given[name] for name in self.input}
        return super().call(ordered, training=training)

    def compute_output_spec(
        self, inputs: Tensors, training: bool | None = None, mask: Tensors = None
    ) -> dict[str, keras.KerasTensor]:
        """The outputs' shapes, for a model that has this one in it."""
        del training, mask
        given = self.checked(inputs)
        rows, width = given["input_ids"].shape
        widths = {"next_sentence_positions": None, "dropout_seed": 3}
        ordered = {
            name: given.get(
                name, keras.KerasTensor((rows, widths.get(name, width)), "int32")
            )
            for name in self.input
        }
        return super().compute_output_spec(ordered)

    def checked(self, inputs: Tensors) -> dict[str, Any]:
        """What is given, by its name in the graph.

        Raises:
          ValueError: if the graph cannot take it.
        """
        named = model_inputs.name_inputs(inputs, list(self.input), self.labels)
        given = {n: model_inputs.as_integers(n, x) for n, x in named.items()}
        length, ids = self.input["input_ids"].shape[1], given["input_ids"]
        width = ids.shape[1]
        if length is not None and width not in (None, length):
            raise ValueError(
                f"`input_ids` must have max_seq_length={length} tokens in each row. "
                f"Received: {width}. Pad or cut them, or build the model for "
                "any length: max_seq_length=None."
            )
        most = self._settings.config.max_position_embeddings
        if "positions" not in given and width is not None and width > most:
            raise ValueError(
                f"The model has {most} positions (max_position_embeddings). Received: "
                f"rows of {width} tokens. Cut them: call the tokenizer with "
                f"truncation=True and max_length={most}."
            )
        for name in ("input_mask", "segment_ids", "positions"):
            shape = given.get(name, ids).shape
            if any(
                a != b and None not in (a, b)
                for a, b in zip(shape, ids.shape, strict=True)
            ):
                raise ValueError(
                    f"`{name}` must have the shape of `input_ids`. Received: "
                    f"{tuple(shape)} and {tuple(ids.shape)}."
                )
        return given

    def _default_seed(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        if training:
            return self.get_layer("bert").drawn_seed(ids)
        return tf.zeros([tf.shape(ids)[0], 3], tf.int32)  # Without effect.

    # Losses.

    def targets(self, x: Tensors, y: Tensors, weights: Tensors) -> tuple[Any, Any]:
        """Labels and sample weights as the losses take them."""
        del x
        return y, weights

    def task_loss(
        self, x: Tensors, y: Tensors, y_pred: dict[str, tf.Tensor], weights: Tensors
    ) -> tf.Tensor:
        """The loss of a model with labels that is compiled without one."""
        raise NotImplementedError

    def compute_loss(
        self,
        x: Tensors = None,
        y: Tensors = None,
        y_pred: Tensors = None,
        sample_weight: Tensors = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The loss given to `compile`, or else that of the task."""
        y, sample_weight = self.targets(x, y, sample_weight)
        if not self.loss and self.labels:
            if y is None:
                raise ValueError(
                    "The loss needs labels. Received: no labels. Pass them as the "
                    f"second argument, or {', '.join(self.labels)} among the inputs."
                )
            return self.task_loss(x, y, y_pred, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self,
        x: Tensors,
        y: Tensors,
        y_pred: Tensors,
        sample_weight: Tensors = None,
    ) -> dict[str, Any]:
        """Keras's metrics, of labels that may be among the inputs."""
        y, sample_weight = self.targets(x, y, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    # Files.

    @staticmethod
    def build_from(**arguments: Any) -> keras.Model:  # noqa: ANN401
        """Calls the function that builds models of the class."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """How the model was built; Keras stores it in `.keras` files."""
        return {
            "name": self.name,
            "settings": self._settings.get_config(),
            "arguments": dict(self._arguments),
            "frozen": [n for n, layer in named_layers(self) if not layer.trainable],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], **_: object) -> keras.Model:
        """Builds the model of `get_config` with new weights."""
        config = dict(config)
        arguments = LayerSettings.arguments(config["settings"]) | config["arguments"]
        model = cls.build_from(**arguments)
        model.name = config["name"]
        freeze(model, config["frozen"])
        return model
