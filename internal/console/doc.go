// Package console is what a person or a log sees of a run: log lines, bars, tables
// that fit a screen, and questions. It writes to the streams that it is given, and knows
// nothing of commands, flags or exit codes.
package console
