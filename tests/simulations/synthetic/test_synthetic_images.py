"""The factors must be visible in pixels and voxels, at any hospital."""

import numpy as np
import pytest
from scipy import ndimage

from simulations.synthetic.phantom import SPACING_MM, draw_lesion, one_piece, render_head
from simulations.synthetic.site_shift import draw_shift
from simulations.synthetic.streams import stream
from simulations.synthetic.tissue_image import draw_histology, render_slide

LATENTS = (-1.5, 0.0, 1.5)


def slide(latent, *, site="a", strength=1.0, seed=1, side=768):
    generator = stream(seed, site, "slide")
    histology = draw_histology(latent, stream(seed, site, "histology"))
    shift = draw_shift(3, site, strength)
    return render_slide(histology, side_px=side, um_per_px=0.5, shift=shift, generator=generator)


def dark_share(pixels):
    brightness = pixels.mean(axis=2)
    return (brightness < 95).sum() / (brightness < 220).sum()


@pytest.mark.parametrize("site", ["a", "b", "c"])
def test_more_lymphocytes_darken_the_tissue(site):
    shares = [dark_share(slide(latent, site=site)) for latent in LATENTS]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 3 * shares[0]


def test_tissue_lies_on_empty_glass():
    pixels = slide(0.0)
    tissue = pixels.mean(axis=2) < 225
    assert 0.3 < tissue.mean() < 0.85
    corner = pixels[:20, :20].astype(float)
    assert corner.mean() > 230


def test_hospitals_stain_differently_and_the_reference_laboratory_does_not():
    stains = [draw_shift(3, site, 1.0).stains for site in "abcdef"]
    assert np.std(stains, axis=0).max() > 0.02
    reference = [draw_shift(3, site, 0.0) for site in "ab"]
    assert np.array_equal(reference[0].stains, reference[1].stains)
    assert reference[0].mr_gain == reference[1].mr_gain


def head(latent, *, site="a", seed=1):
    lesion = draw_lesion(latent, stream(seed, site, "lesion"))
    shift = draw_shift(3, site, 1.0)
    return render_head(
        lesion, shape=(20, 96, 96), shift=shift, generator=stream(seed, site, "scan")
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_tumour_grows_with_its_factor(seed):
    volumes = [int(head(latent, seed=seed).mask.sum()) for latent in LATENTS]
    assert volumes[0] < volumes[1] < volumes[2]
    assert 1.0 < volumes[0] * np.prod(SPACING_MM) / 1000 < volumes[2] * np.prod(SPACING_MM) / 1000


def test_the_core_is_dark_after_contrast_when_the_factor_is_high():
    scan = head(1.5)
    enhanced = scan.volumes["t1c"].astype(float)
    tumour = scan.mask > 0
    inner = ndimage.binary_erosion(tumour, iterations=2)
    rim = tumour & ~ndimage.binary_erosion(tumour, structure=np.ones((1, 3, 3)))
    assert enhanced[inner].mean() < 0.7 * enhanced[rim].mean()


@pytest.mark.parametrize("seed", range(6))
def test_every_section_is_one_piece_without_holes(seed):
    scan = head(0.8, seed=seed)
    assert scan.mask.any()
    for plane in scan.mask:
        if plane.any():
            assert ndimage.label(plane)[1] == 1
            assert np.array_equal(ndimage.binary_fill_holes(plane), plane > 0)


def test_scanners_have_their_own_scale():
    gains = {site: draw_shift(3, site, 1.0).mr_gain for site in "abcd"}
    assert max(gains.values()) > 1.5 * min(gains.values())
    medians = {s: np.median(head(0.0, site=s).volumes["t1"][5:15, 30:60, 30:60]) for s in gains}
    ratios = [medians[site] / gains[site] for site in gains]
    assert max(ratios) < 1.6 * min(ratios)


def test_only_the_largest_piece_of_a_section_is_kept_and_filled():
    mask = np.zeros((3, 20, 20), bool)
    mask[0, 2:9, 2:9] = True
    mask[0, 4:6, 4:6] = False
    mask[0, 14:17, 14:17] = True
    mask[1, 3, 3] = True
    kept = one_piece(mask)
    assert kept[0].sum() == 49
    assert kept[0, 4, 4]
    assert not kept[0, 15, 15]
    assert not kept[1:].any()
