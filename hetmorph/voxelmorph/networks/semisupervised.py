"""VoxelMorph's semi-supervised networks: registration aided by segmentations or by their surfaces."""

import keras

from hetmorph import layers
from hetmorph.networks.base import LoadableModel, references, store_config_args
from hetmorph.networks.vxm import VxmDense, deprecated


@keras.saving.register_keras_serializable("hetmorph")
class VxmDenseSemiSupervisedSeg(LoadableModel):
    """`VxmDense` that also warps a segmentation of the source, for a Dice loss.

    Inputs `[source, target, source_seg, (target_seg)]`, segmentations `[B, *S / seg_resolution, labels]` as
    probabilities; outputs those of `VxmDense`, then the moved segmentations.

    Args:
        inshape: spatial size of the images.
        nb_labels: number of labels.
        nb_unet_features: as in `VxmDense`.
        seg_resolution: voxel size of the segmentations, in image voxels.
        seg_downsize: deprecated name of `seg_resolution`.
        bidir: also warp the target image.
        bidir_labels: also warp the target's segmentation; implies `bidir`.
        name: prefix of the names of the segmentation's layers.
        kwargs: arguments of `VxmDense`.

    Reference:
        Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        nb_labels,
        nb_unet_features=None,
        seg_resolution=2,
        seg_downsize=None,
        bidir=False,
        bidir_labels=False,
        name="vxm_dense",
        **kwargs,
    ):
        seg_resolution = deprecated(seg_downsize, "seg_downsize", "seg_resolution", seg_resolution)
        bidir = bidir or bidir_labels
        vxm_model = VxmDense(inshape, nb_unet_features=nb_unet_features, bidir=bidir, **kwargs)
        flows = vxm_model.references
        seg_shape = (*(None if d is None else int(d / seg_resolution) for d in inshape), nb_labels)

        def moved_labels(flow, which, infix):
            seg = keras.Input(seg_shape, name=f"{name}_{which}_seg")
            resize = layers.RescaleTransform(1 / seg_resolution, dtype="float32", name=f"{name}_seg{infix}_resize")
            warp = layers.SpatialTransformer(dtype="float32", name=f"{name}_seg{infix}_transformer")
            return seg, warp([seg, resize(flow)])

        pairs = [moved_labels(flows.pos_flow, "source", "")]
        if bidir_labels:
            pairs.append(moved_labels(flows.neg_flow, "target", "_neg"))
        inputs, outputs = zip(*pairs, strict=True)
        super().__init__(inputs=[*vxm_model.inputs, *inputs], outputs=[*vxm_model.outputs, *outputs])
        self.references = references(vxm_model=vxm_model, pos_flow=flows.pos_flow, neg_flow=flows.neg_flow)

    def get_registration_model(self):
        """Model of the two images alone whose only output is the displacement."""
        return keras.Model(self.inputs[:2], self.references.pos_flow)


@keras.saving.register_keras_serializable("hetmorph")
class VxmDenseSemiSupervisedPointCloud(LoadableModel):
    """`VxmDense` that also moves surface points and reads the other image's distance transform at them.

    Inputs `[source, target, source_dt, (target_dt, source_surface,) target_surface]`: signed distance transforms
    `[B, *S·sdt_vol_resize, labels]` and surface points `[B, P, N+1]`, a point's last entry its label's channel.
    Outputs those of a bidirectional `VxmDense`, then the distances `[B, P]` that a loss draws to zero.

    Args:
        inshape: spatial size of the images.
        nb_surface_points: P.
        nb_labels_sample: number of labels.
        nb_unet_features: as in `VxmDense`.
        sdt_vol_resize: size of the distance transforms / size of the images.
        surf_bidir: also move the source's surface to the target.
        kwargs: arguments of `VxmDense`.

    Reference:
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """

    @store_config_args
    def __init__(
        self,
        inshape,
        nb_surface_points,
        nb_labels_sample,
        nb_unet_features=None,
        sdt_vol_resize=1,
        surf_bidir=True,
        **kwargs,
    ):
        vxm_model = VxmDense(inshape, nb_unet_features=nb_unet_features, bidir=True, **kwargs)
        flows = vxm_model.references
        dt_shape = (*(None if d is None else int(d * sdt_vol_resize) for d in inshape), nb_labels_sample)
        points_shape = (nb_surface_points, len(inshape) + 1)

        def distances(flow, surface_of, distance_of):
            surface = keras.Input(points_shape, name=f"{surface_of}_surface_input")
            distance = keras.Input(dt_shape, name=f"{distance_of}_dt_input")
            move = layers.PointTransformer(sdt_vol_resize, dtype="float32", name=f"warped_{surface_of}_surface")
            read = layers.ValueAtLocation(dtype="float32", name=f"hausdorff_{distance_of}_dt")
            return surface, distance, read([distance, move([surface, flow])])

        # A displacement that pulls an image from source to target takes points of the target to the source.
        target_surface, source_dt, source_value = distances(flows.pos_flow, "atl", "subj")
        inputs, outputs = [*vxm_model.inputs, source_dt], [*vxm_model.outputs, source_value]
        if surf_bidir:
            source_surface, target_dt, target_value = distances(flows.neg_flow, "subj", "atl")
            inputs += [target_dt, source_surface]
            outputs.append(target_value)
        super().__init__(inputs=[*inputs, target_surface], outputs=outputs)
        self.references = references(vxm_model=vxm_model, pos_flow=flows.pos_flow, neg_flow=flows.neg_flow)

    def get_registration_model(self):
        """Model of the two images alone whose only output is the displacement."""
        return keras.Model(self.inputs[:2], self.references.pos_flow)
