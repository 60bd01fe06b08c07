#pragma once

#include <string_view>

#include "cli/job/job.h"
#include "core/model_set.h"
#include "core/training.h"

namespace mgpu {

// What a job asks of its models, each a check of its own: see checks.cpp for their order. All throw Error (exit 2) at
// the place in the job.

/// Throws Error at the width or height that is not a multiple of `multiple` (16 for Flux, 8 for UNets), with the
/// nearest that is.
void check_sizes(const Job& job, int multiple, std::string_view family);

/// Throws Error at the `shift` of an image whose model is no flow model: only a flow's schedule has one.
void check_shift(const Job& job, Prediction prediction, std::string_view family);

/// Throws Error at the `denoise` of an image whose schedule would have more than a million steps, of which its own are
/// the end.
void check_schedules(const Job& job);

/// Throws Error at an init image where the autoencoder has no encoder.
void check_encoder(const Job& job, const Part& vae);

/// Throws Error where a tiny autoencoder is to decode in bands or tiles: it decodes a picture at once, on one device.
void check_ways(const Job& job, const Part& vae);

/// Throws Error at a clip_skip that would change nothing, and where an encoder's file lacks the layer that is read.
void check_clip_skip(const Job& job, const ModelSet& set);

/// Throws Error where an encoder of the family has a tokenizer that the job does not name and set-up did not install.
void check_tokenizers(const Job& job, const ModelSet& set);

}  // namespace mgpu
