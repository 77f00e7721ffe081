"""Folders of runs of SpeechBrain's own recipes: their YAMLs with small sizes, and checkpoints."""

import torch
from hyperpyyaml import load_hyperpyyaml

BEST_RQ = """
seed: 1000
__set_seed: !apply:speechbrain.utils.seed_everything [1000]
output_folder: {folder}
save_folder: {folder}/save
sample_rate: 16000
pad_to_divisible_by: 4
noise_mean: 0
noise_std: 0.1
streaming: {streaming}
dynchunktrain_config_sampler: !new:{chunks}.DynChunkTrainConfigRandomSampler
    chunkwise_prob: 0.6
    chunk_size_min: 8
    chunk_size_max: 32
    limited_left_context_prob: 0.75
    left_context_chunks_min: 2
    left_context_chunks_max: 32
    valid_config: !new:{chunks}.DynChunkTrainConfig
        chunk_size: 4
        left_context_size: 1
CNN: &cnn !new:speechbrain.lobes.models.convolution.ConvolutionFrontEnd
    input_shape: (8, 10, 80)
    num_blocks: 2
    num_layers_per_block: 1
    out_channels: (8, 8)
    kernel_sizes: (3, 3)
    strides: (2, 2)
    residuals: (False, False)
Transformer: &transformer !new:speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
    input_size: 160
    tgt_vocab: 64
    d_model: 16
    nhead: 2
    num_encoder_layers: 2
    num_decoder_layers: 0
    d_ffn: 32
    dropout: 0.1
    activation: &activation !name:torch.nn.GELU
    conformer_activation: *activation
    encoder_module: conformer
    attention_type: RelPosMHAXL
    normalize_before: True
    causal: False
    layerdrop_prob: 0.0
wrapper: &wrapper !new:speechbrain.lobes.models.transformer.TransformerASR.EncoderWrapper
    transformer: *transformer
Quantizer: &quantizer !new:speechbrain.nnet.quantisers.RandomProjectionQuantizer
    input_dim: 320
    cb_dim: 4
    cb_vocab: 64
linear: &linear !new:speechbrain.nnet.linear.Linear
    input_size: 16
    n_neurons: 64
normalize: &normalize !new:speechbrain.processing.features.InputNormalization
    norm_type: {norm_type}
modules:
    CNN: *cnn
    wrapper: *wrapper
    Quantizer: *quantizer
    normalize: *normalize
    linear: *linear
model: &model !new:torch.nn.ModuleList
    - [*cnn, *wrapper]
compute_features: !new:speechbrain.lobes.features.Fbank
    sample_rate: 16000
    n_fft: 400
    n_mels: 80
epoch_counter: &counter !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: 3000
noam_annealing: &noam !new:speechbrain.nnet.schedulers.NoamScheduler
    lr_initial: 0.0008
    n_warmup_steps: 25000
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: {folder}/save
    recoverables:
        model: *model
        noam_scheduler: *noam
        normalize: *normalize
        counter: *counter
        quantizer: *quantizer
        linear: *linear
"""

WAV2VEC2 = """
output_folder: {folder}
save_folder: {folder}/save
num_negatives: 10
extractor: &extractor !new:speechbrain.lobes.models.wav2vec.W2VLatentExtractor
    kernel_sizes: [11, 3, 3, 3, 3, 3, 3]
    strides: [5, 2, 2, 2, 2, 2, 2]
    out_channels: [8, 8, 8, 8, 8, 8, 8]
encoder: &encoder !new:speechbrain.lobes.models.transformer.Transformer.TransformerEncoder
    d_model: 16
    num_layers: 2
    nhead: 2
    d_ffn: 32
    dropout: 0.1
    layerdrop_prob: 0.05
    normalize_before: True
    activation: !name:torch.nn.GELU
encoder_wrapper: &wrapper !new:speechbrain.lobes.models.wav2vec.EncoderWrapper
    in_dim: 8
    embedding_dim: 16
    latent_encoder: *encoder
    dropout_encoder_input: 0.1
target_quantiser: &quantiser !new:speechbrain.lobes.models.wav2vec.W2VTargetQuantiser
    in_dim: 8
    out_dim: 6
    num_vars: 5
    temperature_decay: (2.0, 0.25, 0.999995)
feat_proj: &feat_proj !new:torch.nn.Linear
    in_features: 16
    out_features: 6
modules:
    latent_extractor: *extractor
    latent_encoder: *wrapper
    feat_proj: *feat_proj
    target_quantiser: *quantiser
loss: !new:speechbrain.nnet.losses.ContrastiveLoss
    logit_temp: 0.1
epoch_counter: &counter !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: 3000
lr_scheduler: &scheduler !new:speechbrain.nnet.schedulers.WarmCoolDecayLRSchedule
    lr: 0.0005
    warmup: 30000
    cooldown: 370000
    total_steps: 400000
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: {folder}/save
    recoverables:
        latent_extractor: *extractor
        latent_encoder: *wrapper
        feat_proj: *feat_proj
        target_quantiser: *quantiser
        scheduler: *scheduler
        counter: *counter
"""
CHUNKS = "speechbrain.utils.dynamic_chunk_training"
RECIPES = {"continue_best_rq": BEST_RQ, "continue_speechbrain_wav2vec2": WAV2VEC2}


def save_run(folder, name, norm_type="sentence", streaming=True):
    """Writes the folder of a run as after some training; returns what its YAML has built."""
    folder.mkdir(parents=True)
    options = {"norm_type": norm_type, "streaming": streaming, "chunks": CHUNKS}
    text = RECIPES[name].format(folder=folder, **options)
    (folder / "hyperparams.yaml").write_text(text, "utf-8")
    with torch.random.fork_rng():
        hparams = load_hyperpyyaml(text)
        torch.manual_seed(7)  # another seed than that of the YAML
        with torch.no_grad():
            for module in hparams["modules"].values():
                for parameter in module.parameters():
                    if parameter.requires_grad:
                        parameter += 0.1 * torch.randn_like(parameter)
        if "normalize" in hparams:
            hparams["normalize"](hparams["compute_features"](torch.randn(2, 16000)))
            hparams["Quantizer"].P.normal_()
    hparams["checkpointer"].save_checkpoint(name="good")
    for module in hparams["modules"].values():
        module.eval()
    return hparams
