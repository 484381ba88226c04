// Command dbbackup backs up, verifies and restores PostgreSQL clusters.
//
// This package is the only one that reads the environment and the config file,
// and with internal/console the terminal. It turns them into the Options of the
// verbs, prints what they report, and maps their errors to exit codes. The rules
// that hold here:
//
//   - Standard output carries the result, as text or as one JSON object per
//     line; everything else goes to standard error.
//   - Flags work before and after names; "--" ends them.
//   - A flag beats the environment (DBBACKUP_*), which beats the config file,
//     which beats the default.
//   - Exit codes are an interface: see exitcode.go.
package main
