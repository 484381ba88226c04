package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"dbbackup/internal/fault"
)

// descriptor returns a stream's file descriptor when it is a terminal.
func descriptor(stream any) (fd int, isTerminal bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd()) //nolint:gosec // a descriptor fits
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return fd, err == nil
}

func isTerminal(stream any) bool {
	_, ok := descriptor(stream)
	return ok
}

// columns is the width of a terminal, and 0 for anything else.
func columns(stream any) int {
	fd, ok := descriptor(stream)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil || size.Col < 40 {
		return 80 // a serial line knows no size
	}
	return int(size.Col)
}

// canAsk reports whether somebody can be asked, and answer.
func (a *application) canAsk() bool { return isTerminal(a.stdin) && isTerminal(a.stderr) }

// askPassword reads a password from the terminal without showing it.
func (a *application) askPassword(ctx context.Context) (string, error) {
	fd, ok := descriptor(a.stdin)
	if !ok || !a.canAsk() {
		return "", fault.New(fault.Usage, "without one: ~/.pgpass (mode 0600) or PGPASSWORD", "a password can only be asked for on a terminal")
	}
	return a.askHidden(ctx, fd, "Password: ")
}

// askSecret reads a passphrase from the terminal without showing it.
func (a *application) askSecret(ctx context.Context, prompt string) (string, error) {
	fd, ok := descriptor(a.stdin)
	if !ok || !a.canAsk() {
		return "", fault.New(fault.Usage, "--passphrase-file FILE, or "+passphraseVariable, "a passphrase can only be asked for on a terminal")
	}
	return a.askHidden(ctx, fd, prompt)
}

// askHidden asks once the terminal is silent: it forgets then what was typed
// before, so that whoever answers a question that stands there is heard.
func (a *application) askHidden(ctx context.Context, fd int, prompt string) (string, error) {
	text, err := withoutEcho(fd, func() (string, error) {
		fmt.Fprint(a.stderr, prompt) //nolint:errcheck // a terminal
		return readLine(ctx, fd)
	})
	fmt.Fprintln(a.stderr) //nolint:errcheck // the newline was not shown either
	return text, err
}

// readAnswer reads what is typed in answer to a question.
func (a *application) readAnswer(ctx context.Context) (string, error) {
	fd, _ := descriptor(a.stdin)
	text, err := readLine(ctx, fd)
	return strings.TrimSpace(text), err
}

// withoutEcho runs f while the terminal does not show what is typed.
func withoutEcho(fd int, f func() (string, error)) (string, error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("ask for the password: %w", err)
	}
	silent := *before
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return "", fmt.Errorf("ask for the password: %w", err)
	}
	text, err := f()
	return text, errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETSF, before))
}

// readLine reads one line from a terminal. It looks up now and then, so that a
// signal ends the wait, and the terminal shows again what is typed.
func readLine(ctx context.Context, fd int) (string, error) {
	const lookUp = 100 // milliseconds
	var line []byte
	chunk := make([]byte, 1024)
	for !bytes.ContainsRune(line, '\n') {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, lookUp) //nolint:gosec // a descriptor fits
		if errors.Is(err, unix.EINTR) || ready == 0 {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read from the terminal: %w", err)
		}
		n, err := unix.Read(fd, chunk)
		if err != nil {
			return "", fmt.Errorf("read from the terminal: %w", err)
		}
		if n == 0 {
			return "", fault.New(fault.Usage, "", "nothing was typed")
		}
		line = append(line, chunk[:n]...)
	}
	text, _, _ := bytes.Cut(line, []byte("\n"))
	return string(text), nil
}
