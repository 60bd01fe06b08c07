#pragma once

namespace mgpu {

/// From here on SIGINT, SIGTERM and SIGHUP end the program at once with exit code 130, 143 or 129. They do so from the
/// program's first instructions on, where the linker calls this; main calls it again, which changes nothing. A SIGHUP
/// that is ignored when the program starts (nohup) stays ignored. SIGPIPE and SIGXFSZ are ignored: what cannot be
/// written fails where it is written, with EPIPE or EFBIG.
void install_signal_handlers();

/// From here on the first of these signals is noted, for the render to drop what is in flight and to report. A second
/// SIGINT or SIGTERM ends the program at once; those that come within a tenth of a second of the first are the same
/// request (`timeout` sends each signal twice), and so is every SIGHUP (a shell repeats that of its terminal).
void note_signals();

/// The signal that was noted, or 0.
int caught_signal();

/// Opens closed standard streams, so that no file of ours gets the number of one and takes what is printed there. What
/// is printed to a stream that was closed fails with EBADF.
void open_standard_streams();

}  // namespace mgpu
