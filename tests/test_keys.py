"""Every key of every config does what its comment says: the test that shows it, by key."""

import ast
from pathlib import Path

from gm_jax.defaults.table import flatten
from tests.tiny import EXPERIMENTS, load

GAN = "test_gan_phases::test_losses_of_both_networks"
CRITIC_STEPS = "test_gan_phases::test_critic_steps_are_on_fresh_batches_and_two_devices_give_the_update_of_one"
VAE = "test_vae::test_loss_is_minus_the_bound_with_its_weights"
INPAINTED = "test_diffusion_task::test_inpainting_leaves_known_pixels_untouched_bit_for_bit"
VARIED = "test_diffusion_task::test_variations_of_more_strength_are_farther_from_the_image"
DIFFUSION = "test_diffusion_task::test_loss_is_the_error_of_the_objective_and_some_labels_are_hidden"
OPTIM = "test_optim::test_optimisers_are_those_of_the_papers"
RATES = "test_optim::test_learning_rates_warm_up_and_decay"
OWN = "test_optim::test_a_network_may_have_settings_of_its_own"
CYCLEGAN = "test_cyclegan::test_losses_are_those_of_the_paper"
DOMAINS = "test_cyclegan::test_domains_are_splits_or_values_of_an_attribute"
WINDOWS = "test_cyclegan::test_images_are_cut_out_and_mirrored_by_example_alike_in_both_phases"
TRANSLATED = "test_cyclegan::test_a_folder_is_translated_name_by_name"
EPOCHS = "test_configs::test_epochs_become_steps_once_the_data_are_known"
MEASURED = "test_measure::test_every_number_says_what_it_is_of"
DURING = "test_measure::test_training_is_scored_by_validation_images_and_the_best_checkpoint_chosen_so"
GROWTH = "test_stylegan::test_growth_doubles_and_fades"
PROJECT = "test_stylegan::test_mode_project_writes_what_figures_read"
FOUND = "test_data::test_environment_then_home"

SHOWN_BY = {
    "task": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "seed": "test_step::test_noise_follows_from_seed_step_phase_and_repeat",
    "steps": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "batch_size": "test_step::test_batches_are_a_function_of_seed_and_step",
    "rows": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "epochs.steps": EPOCHS,
    "epochs.log_every": EPOCHS,
    "epochs.evaluate_every": EPOCHS,
    "epochs.checkpoint_every": EPOCHS,
    "epochs.optim.decay_steps": EPOCHS,
    "epochs.optim.warmup_steps": EPOCHS,
    "epochs.optim.hold_steps": EPOCHS,
    "epochs.vae.warmup_steps": EPOCHS,
    "minutes": "test_report::test_the_plan_is_cheapest_first_within_the_budget",
    "steps_per_call": "test_step::test_scanned_steps_equal_single_steps_bit_for_bit",
    "log_every": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "evaluate_every": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "checkpoint_every": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "keep_checkpoints": "test_checkpoint::test_keeps_the_last_two_and_the_best",
    "rollbacks": "test_faults::test_a_run_that_diverges_goes_back_with_lower_rates_and_so_does_one_that_was_stopped",
    "dataset.name": FOUND,
    "dataset.data_dir": FOUND,
    "dataset.folder": "test_data::test_folder_with_splits_and_classes",
    "dataset.embedded": "test_data::test_stand_in_forbidden",
    "dataset.image_size": "test_data::test_sizes_that_vary_need_an_image_size",
    "dataset.skip_corrupt": (
        "test_faults::test_images_that_cannot_be_read_are_left_out_on_request_and_counted"
    ),
    "dataset.split": "test_evaluate::test_any_split_may_be_trained_on",
    "dataset.validation": "test_evaluate::test_what_is_held_out_trains_nothing_and_chooses_the_best",
    "evaluation.split": "test_evaluate::test_samples_are_compared_with_each_other_and_with_training_images",
    "evaluation.n": "test_evaluate::test_a_batch_of_some_examples",
    "evaluation.batch_size": "test_classifier::test_evaluation_counts_every_example_once",
    "evaluation.samples": "test_evaluate::test_samples_are_compared_with_each_other_and_with_training_images",
    "evaluation.metrics": MEASURED,
    "evaluation.extractors": MEASURED,
    "evaluation.convention": "test_inception::test_conventions_are_part_of_the_name",
    "evaluation.inception": "test_inception::test_conventions_are_part_of_the_name",
    "evaluation.during": DURING,
    "evaluation.during_n": DURING,
    "evaluation.seed": "test_measure::test_random_subsets_follow_from_a_seed",
    "evaluation.judge": "test_gan::test_a_trained_classifier_judges_samples",
    "evaluation.importance_samples": "test_vae::test_importance_samples_are_decoded_in_equal_chunks_of_ten_at_most",
    "sampling.n": "test_configs::test_every_config_trains_and_one_of_each_network_does_all_else",
    "sampling.seed": "test_gan::test_a_sample_is_a_function_of_seed_number_and_label",
    "sampling.batch_size": "test_baselines::test_same_seed_same_samples_whatever_the_chunk",
    "sampling.label": "test_gan::test_a_sample_is_a_function_of_seed_number_and_label",
    "sampling.arithmetic": "test_gan::test_figures_of_arithmetic_and_training",
    "sampling.sampler": "test_diffusion_task::test_plans_of_the_samplers",
    "sampling.steps": "test_diffusion_task::test_plans_of_the_samplers",
    "sampling.words": "test_diffusion_task::test_combinations_of_attributes_are_classes_that_words_ask_for",
    "evaluation.ode_steps": "test_diffusion_task::test_likelihoods_by_the_flow_are_of_models_that_learn_little_noise",
    "inpaint.input": INPAINTED,
    "inpaint.mask": INPAINTED,
    "inpaint.n": INPAINTED,
    "vary.input": VARIED,
    "vary.strength": VARIED,
    "vary.n": VARIED,
    "sampling.spacing": "test_diffusion_task::test_spacing_of_the_plan",
    "sampling.rho": "test_diffusion_task::test_spacing_of_the_plan",
    "sampling.churn": "test_diffusion_task::test_plans_of_the_samplers",
    "sampling.guidance_interval": (
        "test_diffusion_task::test_outside_of_its_interval_guidance_asks_the_conditional_model_alone"
    ),
    "sampling.eta": "test_diffusion_task::test_samples_with_noise_in_every_step",
    "sampling.guidance": "test_diffusion_task::test_guidance_runs_from_unconditional_over_conditional_onwards",
    "optim.name": OPTIM,
    "optim.beta1": OPTIM,
    "optim.beta2": OPTIM,
    "optim.epsilon": OPTIM,
    "optim.nesterov": OPTIM,
    "optim.weight_decay": OPTIM,
    "optim.learning_rate": "test_optim::test_the_learning_rate_reaches_the_optimiser",
    "optim.warmup_steps": RATES,
    "optim.decay": RATES,
    "optim.decay_steps": RATES,
    "optim.hold_steps": RATES,
    "optim.clip_norm": "test_optim::test_gradients_are_clipped_to_a_norm_over_all_parameters",
    "optim.lazy_correction": "test_optim::test_rate_and_betas_allow_for_lazy_phases",
    "optim.ema_decay": "test_step::test_a_step_is_gradient_descent_with_an_average_that_warms_up",
    "optim.generator.learning_rate": OWN,
    "optim.discriminator.learning_rate": OWN,
    "optim.generator.ema_decay": OWN,
    "optim.discriminator.clip_weights": "test_optim::test_weights_are_clipped_after_the_update",
    "augment.flip": "test_classifier::test_flip_mirrors_about_half_and_is_an_involution",
    "augment.crop": "test_classifier::test_crop_reaches_every_shift_up_to_the_padding",
    "augment.cutout": "test_classifier::test_cutout_blanks_a_square_with_the_mean",
    "classifier.classes": "test_classifier::test_a_config_that_does_not_fit_is_told",
    "classifier.mean": "test_classifier::test_validation_evaluation_and_features",
    "classifier.std": "test_classifier::test_validation_evaluation_and_features",
    "classifier.flip_at_test": "test_classifier::test_validation_evaluation_and_features",
    "classifier.label_smoothing": "test_classifier::test_loss_has_smoothed_labels_and_is_logged_without",
    "autoencoder.noise": "test_autoencoder::test_loss_is_the_squared_error_and_the_penalty",
    "autoencoder.penalty": "test_autoencoder::test_loss_is_the_squared_error_and_the_penalty",
    "autoencoder.penalty_weight": "test_autoencoder::test_loss_is_the_squared_error_and_the_penalty",
    "autoencoder.target_activity": "test_autoencoder::test_loss_is_the_squared_error_and_the_penalty",
    "vae.likelihood": VAE,
    "vae.scale": VAE,
    "vae.binarise": VAE,
    "vae.beta": VAE,
    "vae.warmup_steps": VAE,
    "vae.free_bits": VAE,
    "vae.train_samples": VAE,
    "gan.loss": GAN,
    "gan.critic_steps": CRITIC_STEPS,
    "gan.label_smoothing": GAN,
    "gan.gradient_penalty": GAN,
    "gan.conditional": GAN,
    "gan.wrong_labels": GAN,
    "gan.augment": GAN,
    "gan.r1": "test_gan_phases::test_r1_is_of_real_images_and_stronger_the_rarer",
    "gan.r1_every": "test_gan_phases::test_r1_is_of_real_images_and_stronger_the_rarer",
    "gan.collapse_alarm": "test_gan::test_collapse_is_warned_of",
    "gan.mixing": "test_stylegan::test_mixing_changes_the_layers_behind_a_cut_alone",
    "growth.first": GROWTH,
    "growth.stable": GROWTH,
    "growth.fade": GROWTH,
    "growth.batch_sizes": GROWTH,
    "growth.rates": GROWTH,
    "optim.generator.ema_half_life": "test_optim::test_an_average_may_forget_a_half_in_so_many_images",
    "sampling.truncation": "test_stylegan::test_samples_are_truncated_towards_the_mean_and_seen_at_the_level_reached",
    "sampling.between": "test_stylegan::test_figure_between_latents_in_files",
    "project.input": PROJECT,
    "project.layers": PROJECT,
    "project.steps": PROJECT,
    "project.learning_rate": PROJECT,
    "project.candidates": PROJECT,
    **{f"optim.{network}.learning_rate": OWN for network in ("ab", "ba", "a", "b")},
    **{f"optim.{network}.ema_decay": OWN for network in ("ab", "ba", "a", "b")},
    **{f"domains.{name}.{key}": DOMAINS for name in "ab" for key in ("split", "test", "attribute", "value")},
    **{f"cyclegan.{key}": CYCLEGAN for key in ("loss", "cycle", "identity", "pool")},
    "cyclegan.crop": WINDOWS,
    "cyclegan.flip": WINDOWS,
    **{f"translate.{key}": TRANSLATED for key in ("input", "output", "direction")},
    "diffusion.timesteps": DIFFUSION,
    "diffusion.schedule": "test_samplers::test_schedules_are_found_by_name_and_mistakes_are_named",
    "diffusion.beta_start": "test_evaluate::test_a_chain_that_ends_before_the_prior_is_refused",
    "diffusion.beta_end": "test_evaluate::test_a_chain_that_ends_before_the_prior_is_refused",
    "diffusion.prediction": DIFFUSION,
    "diffusion.objective": DIFFUSION,
    "diffusion.conditional": DIFFUSION,
    "sampling.inversions": "test_diffusion_inversion::test_inversion_follows_the_flow_and_back",
    "diffusion.variance": "test_diffusion_task::test_the_bound_trains_a_learned_variance_and_nothing_else",
    "diffusion.label_dropout": DIFFUSION,
    "diffusion.attributes": "test_diffusion_task::test_combinations_of_attributes_are_classes_that_words_ask_for",
}


def test_every_key_is_shown_by_a_test_that_exists():
    """Networks' own keywords are compared with PyTorch in test_networks; a new key needs a test and a line here."""
    configs = [flatten(load(experiment)) for experiment in EXPERIMENTS]
    keys = {key for config in configs for key in config if not key.startswith(("model.", "if_embedded."))}
    assert keys == SHOWN_BY.keys()
    for file in {shown.partition("::")[0] for shown in SHOWN_BY.values()}:
        tree = ast.parse((Path(__file__).parent / f"{file}.py").read_text())
        tests = {f"{file}::{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {shown for shown in SHOWN_BY.values() if shown.startswith(f"{file}::")} <= tests
