package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"dbbackup/internal/fault"
)

// Terminal is a person at the other end, if both streams are terminals.
type Terminal struct {
	In  io.Reader // where answers come from
	Out io.Writer // where questions go: standard error, for standard output is the result's
}

// CanAsk reports whether somebody can be asked, and answer.
func (t Terminal) CanAsk() bool {
	_, in := descriptor(t.In)
	_, out := descriptor(t.Out)
	return in && out
}

// AskHidden asks for what must not be shown, once the terminal is silent: it forgets
// then what was typed before, so that whoever answers a question that stands there
// is heard. CanAsk must hold.
func (t Terminal) AskHidden(ctx context.Context, prompt string) (string, error) {
	fd, _ := descriptor(t.In)
	text, err := withoutEcho(fd, func() (string, error) {
		fmt.Fprint(t.Out, prompt) //nolint:errcheck // a terminal
		return readLine(ctx, fd)
	})
	fmt.Fprintln(t.Out) //nolint:errcheck // the newline was not shown either
	return text, err
}

// Ask asks for a line, without the spaces around it. CanAsk must hold.
func (t Terminal) Ask(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(t.Out, prompt) //nolint:errcheck // a terminal
	fd, _ := descriptor(t.In)
	text, err := readLine(ctx, fd)
	return strings.TrimSpace(text), err
}

// Columns is the width of a terminal, and 0 for anything else.
func Columns(stream io.Writer) int {
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

// descriptor returns a stream's file descriptor, and whether it is a terminal.
func descriptor(stream any) (fd int, isTerminal bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd()) //nolint:gosec // a descriptor fits
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return fd, err == nil
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
