"""Where names live now: an import by an older spelling still works, and a warning says the new one."""

import warnings
from importlib import import_module
from operator import attrgetter

# By module, then by new home, the names separated by spaces: `old=new` where a name changed as well, and
# `old=Class.new` where a function became a method. Such a module ends in `__getattr__ = forward(__name__)`.
# An entry stays for two minor versions (CONTRIBUTING). This file is written by hand.
NEW_HOMES = {
    "check": {
        "check": "pieces=named_parts",
    },
    "data.datasets": {
        "data.datasets": (
            "named=files_named tiles=isprs_tiles splits_of=split_entry described=open_toml "
            "recognised=recognise"
        ),
        "data.download": (
            "save_stream resuming fetch_file check_members unpack LOVEDA_FILES download_loveda"
        ),
        "data.splits": (
            "by_scene same_files same_ground leaks check_labels check_dataset split_of=Dataset.split "
            "scene_raster=Dataset.raster scene_labels=Dataset.labels ground=ground_box"
        ),
    },
    "data.raster": {
        "data.nodata": "LARGEST assumed_nodata",
    },
    "data.rasters": {
        "data.check": "check_rasters count_valid unlike_most",
        "data.coverage": (
            "Coverage box_sum cell_counts pieces=reading_boxes summed=summed_area_table "
            "coverage=coverage_of enough=has_enough_valid starts=corner_boxes place=sample_corners "
            "grid_of=covering_grid probe=some_window_fits covered=nonempty_coverage "
            "valid_pixels=Coverage.valid_pixels"
        ),
        "data.gdal": (
            "SUFFIXES CURES DRIVERS OPEN driver_of is_remote refuse_remote find_rasters explained "
            "same_crs png_ends=png_is_complete no_place_is_fine=allow_no_georeference "
            "forget_error=clear_last_error handle=open_handle burn=rasterize_polygons "
            "move_shape=reproject_polygon"
        ),
        "data.labels": (
            "Classes check_classes check_grid find_classes pair_labels raster_classes read_classes "
            "read_labels pack=pack_rgb colormap_of=palette_of translate=translate_codes "
            "palette_colours=palette_names_classes codes_of=label_codes "
            "strange_labels=unknown_labels_sentence"
        ),
        "data.pool": (
            "Pool TRIES check_bands check_settings check_size listed=list_sources sift=Pool.keep_usable "
            "skip=Pool.skip draw_windows=Pool.windows grid_windows=Pool.grid "
            "in_block_order=Pool.in_block_order read_or_instead=Pool.read"
        ),
        "data.nodata": "usable_nodata missing=nodata_mask measured=nodata_to_nan",
        "data.raster": (
            "Raster alpha_band looks_like_mask open_array open_file open_raster pixel_metres "
            "BUDGET=MAX_WINDOW_BYTES "
            "look=overview spread=spread_windows everywhere=covering_strips check_block=check_header "
            "read_raw=Raster.read_raw read_window=Raster.read valid_window=Raster.valid"
        ),
        "data.statistics": (
            "moments band_statistics raster_moments means=mean_and_square part_of=part_of_overview"
        ),
        "data.write": "rgb tiff_profile raster_writer write_raster write_scene describe=write_tags",
        "errors": "InputError",
        "files": "stamp_of=file_stamp",
    },
    "data.scenes": {
        "data.scenes": (
            "smooth=smooth_noise lines=line_positions layout=street_grid colour_of=class_colours "
            "shifted=shift_mask"
        ),
    },
    "data.shapes": {
        "data.shapes": (
            "crs_name=crs_of_member unpacked=gpkg_geometry pixel_shape=polygon_to_pixels "
            "pixels=length_in_pixels shared=split_counts facing=faces_other_split blocks=block_boxes "
            "any_valid=block_has_data"
        ),
    },
    "evaluation.evidence": {
        "evaluation.evidence": (
            "stretch=student_factor verdict=difference_verdict called=row_name sift=countable_rows "
            "tables=arm_tables card_test=scorecard_test assess=assess_claim"
        ),
    },
    "evaluation.judges": {
        "evaluation.judged": "as_table show_judged smallest_difference judge_power",
    },
    "evaluation.maps": {
        "mapping.basis": (
            "unit_features=sample_unit_features means_of=mean_by_position main_axes=principal_axes "
            "colours=colour_predictor fit_colours=fit_colour_predictor"
        ),
        "mapping.boxes": (
            "guided_method on_earth=to_map_coordinates rings=boxes_in_raster features=box_features draw_boxes"
        ),
        "mapping.embed": "bytes_of=encode_colours embed",
        "mapping.segment": "digest=weights_digest at_work=model_on_device segment",
        "mapping.stitch": (
            "speaker=predictor opinions=weighted_predictions ahead=threaded_map Sums=BandSums "
            "drawn=encode_band labels_of=encode_labels shares_of=encode_shares map_bands"
        ),
        "mapping.store": (
            "band_file=band_path keep_band=save_band kept_band=load_band begin=prepare_folder "
            "joined=process_group meet=wait_for_all parts_beside=band_folder Sheet=OutputFile "
            "as_cog=copy_as_cog assemble ENDINGS=OUTPUT_KINDS check_out=check_output draw=write_map"
        ),
        "mapping.tiling": (
            "starts_of=window_starts written=written_blocks plan=plan_windows blend_weights "
            "bands_of=band_layout share=bands_of_process check_windows"
        ),
    },
    "evaluation.mechanisms": {
        "evaluation.mechanisms": (
            "centred=centred_boxes kinship=ground_relation family=similar_content "
            "colour_likeness=colour_similarity most_alike=nearest_valid"
        ),
    },
    "explain.attribution": {
        "explain.attribution": "measured=fill_nodata among=contrast_among clipped=clip_box",
    },
    "lessons": {
        "doctor": "kernel_reply",
    },
    "mapping.embed": {
        "mapping.basis": (
            "sample_unit_features mean_by_position principal_axes colour_predictor fit_colour_predictor"
        ),
    },
    "methods.byol": {
        "methods.ema": "rising=rising_momentum shadow=slow_copy follow=move_towards",
    },
    "methods.false": {
        "objectives.suspects": "SENTINEL lowest released nearest=smallest_gap",
    },
    "methods.glcnet": {
        "views.matched": "inner admissible far_enough pick_windows",
    },
    "methods.grass": {
        "methods.pictures": "show_guidance",
        "views.peaks": (
            "runs connected box_around maxima enlarged released_choice hot_boxes spread=expand_ranges "
            "links=touching usable=has_peak"
        ),
        "views.recut": "nearest_pixels",
    },
    "methods.placebos": {
        "methods.placebos": "Told=LabelOracle",
    },
    "methods.practice": {
        "training.knn": "knn_miou dense_cells cell_labels",
        "training.practice": "GENTLE gentle practice",
    },
    "methods.ssccl": {
        "views.pairs": "usable=has_enough_overlap overlap_mask",
    },
    "training.engine": {
        "training.device": (
            "SMALL_JOB pick_device start_engine placed recorded_only native_bfloat16 resolve_precision "
            "resolve_layout settle=settle_precision resolve_workers share_of"
        ),
    },
    "training.finetune": {
        "training.crops": "augment class_weights pixel_loss",
        "training.labelled": "grid_windows choose read_subset labelled_windows read_windows open_pairs",
        "training.validation": "knn_probe",
    },
    "training.pretrain": {
        "data.statistics": "normalise",
        "notebook": "progress_bar",
        "training.engine": (
            "decay_groups seed_step DEATHS ENOUGH finite_step in_a_sentence train_step train"
        ),
        "training.processes": "anyone=any_process",
        "training.record": "HEALTH RunRecorder numbers=scalars Keeper=RunRecorder",
        "training.schedule": "lr_factor",
        "training.windows": "WindowSet loader",
    },
    "training.record": {
        "notebook": "progress_bar",
    },
    "training.watch": {
        "training.health": (
            "uniformity effective_rank health unstable collapsed moved facts DEAD_STD DEAD_RANK LOW_STD "
            "FALLING RISE MOVED TOO_EARLY TO_LEARN FEW_IMAGES SKIPS CONTRASTIVE"
        ),
        "training.record": "first_rows save_trace",
    },
    "weights": {
        "layouts": "LIGHTLY PREFIXES",
        "tensors": "RUN_FIELDS",
    },
    "widgets.boxes": {
        "colours": "COLORS=BOX_COLOURS",
        "widgets.boxes": "boxes_type=Boxes checked=checked_boxes picture=image_png",
    },
    "widgets.explorers": {
        "widgets.explorers": ("alike=same_class audit=suspect_scores reach=perplexity region=guided_region"),
        "widgets.batches": "kind_of=majority_class majority_class thumbnails caption",
        "widgets.networks": (
            "open_network listed=network_menu from_file=read_network from_checkpoint=read_network"
        ),
    },
    "widgets.features": {
        "explain.readout": "read_out=linear_read_out",
        "training.knn": "labels_at_cells=cell_labels cell_labels",
        "widgets.features": (
            "ask=saliency_question company=comparison_rows marks=match_quality matched=true_match"
        ),
    },
    "widgets.frame": {
        "widgets.explorer": (
            "explorer=Explorer explorer_type=Explorer LOOK=LOOKING_SIGN LOOKING=ONE_LOOK "
            "redraw=Explorer.redraw silent=Explorer.silent settings=Explorer.settings "
            "values=Explorer.values place=Explorer.place save=Explorer.save restore=Explorer.restore "
            "cancel=Explorer.cancel wait=Explorer.wait press=Explorer.press "
            "show_found=Explorer.show_found look_again=Explorer.look_again put=Explorer.apply "
            "draw=Explorer.draw_found search=Explorer.look_in_thread reopen=Explorer.open_source "
            "enter=Explorer.open_image follow=Explorer.move_canvas complain=Explorer.show_error "
            "told=Explorer.errors_shown arranged=Explorer.rows"
        ),
        "widgets.ground": (
            "Ground band_levels embedded=embedded_scene sources=find_sources open_ground "
            "tiles=window_corners SMALL mosaic=sampled_picture glance=whole_picture"
        ),
        "widgets.pictures": (
            "show_row inset=shrink_axes key=colour_key show_over quick=fast_png tidy=collected_at_once"
        ),
        "widgets.saved": (
            "VERSION=SETTINGS_VERSION value_of=shown_value check_value check_canvas read_settings "
            "ground_boxes=window_shapes"
        ),
    },
    "widgets.run": {
        "widgets.run": (
            "as_html=status_html draw=show_run_or_batch stamp=file_mark redraw=Watcher.refresh "
            "press_stop=Watcher.ask_to_stop watcher_type=Watcher"
        ),
    },
}


def moved_names(module):
    'The names that left a module, given below `rsssl_nb`: {old name: "module:name"}.'
    found = {}
    for home, names in NEW_HOMES.get(module, {}).items():
        for name in names.split():
            old, _, new = name.partition("=")
            found[old] = f"{home}:{new or old}"
    return found


def forward(module, table=None):
    """A module's `__getattr__` for names that moved: those of NEW_HOMES, or of `table`.

    A table is {old name: "module:name"}, modules below `rsssl_nb`. The name is found at its new home, with a
    DeprecationWarning that says where; other names raise AttributeError.
    """
    table = moved_names(module.removeprefix("rsssl_nb.")) if table is None else table

    def __getattr__(name):
        if name not in table:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = table[name].partition(":")
        cure = f"use {new} of rsssl_nb.{home}" if "." in new else f"from rsssl_nb.{home} import {new}"
        warnings.warn(
            f"{module}.{name} lives in rsssl_nb.{home} now: {cure}", DeprecationWarning, stacklevel=2
        )
        return attrgetter(new)(import_module(f"rsssl_nb.{home}"))

    return __getattr__
