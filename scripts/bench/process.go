package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// cost is what one run took.
type cost struct {
	wall    time.Duration
	cpu     time.Duration // of all processes of the run, the server's excepted
	bytes   int64         // written to the output
	peakRSS int64         // of dbbackup's own process, in bytes; 0 for the others
}

// pipeline runs commands, each reading what the one before it writes. The last
// one's standard output goes to the file named to, where that is not empty.
func pipeline(commands []*exec.Cmd, to string) (cost, error) {
	closeAll, err := connect(commands, to)
	if err != nil {
		return cost{}, errors.Join(err, closeAll())
	}
	stderr := make([]bytes.Buffer, len(commands))
	var errs []error
	began := time.Now()
	var started []*exec.Cmd
	for i, cmd := range commands {
		cmd.Stderr = &stderr[i]
		if err := cmd.Start(); err != nil {
			errs = append(errs, err)
			break
		}
		started = append(started, cmd)
	}
	// Only the children hold the pipes now, so that each sees the others' end.
	errs = append(errs, closeAll())
	var c cost
	for i, cmd := range started {
		if err := cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, stderr[i].Bytes()))
		}
		c.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	c.wall = time.Since(began)
	return c, errors.Join(errs...)
}

// connect opens the pipes between commands and the output file. closeAll closes
// this process's side of them, also after an error.
func connect(commands []*exec.Cmd, to string) (closeAll func() error, err error) {
	var files []*os.File
	closeAll = func() error {
		var errs []error
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for i := range commands[1:] {
		r, w, err := os.Pipe()
		if err != nil {
			return closeAll, err
		}
		files = append(files, r, w)
		commands[i].Stdout, commands[i+1].Stdin = w, r
	}
	if to != "" {
		f, err := os.Create(to)
		if err != nil {
			return closeAll, err
		}
		files = append(files, f)
		commands[len(commands)-1].Stdout = f
	}
	return closeAll, nil
}

// backup runs dbbackup on a database. The set lies in a store of its own.
func (b *bench) backup(ctx context.Context, database, mode string) (cost, error) {
	store := filepath.Join(b.out, "store")
	c, err := b.timed(ctx, nil, "backup", "single", database, "--mode", mode, "--compression", "6", "--jobs", "2",
		"--store", store, "--pg-bin", b.cluster.BinDir, "--quiet")
	if err != nil {
		return c, errors.Join(err, os.RemoveAll(store))
	}
	if c.bytes, err = bytesBelow(store); err != nil {
		return c, err
	}
	return c, os.RemoveAll(store)
}

// timed runs dbbackup once.
func (b *bench) timed(ctx context.Context, env []string, args ...string) (cost, error) {
	cmd := b.command(ctx, b.binary, args...)
	cmd.Env = append(cmd.Env, env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return cost{}, err
	}
	peak, err := waitWatching(cmd)
	c := cost{wall: time.Since(began), peakRSS: peak}
	if err != nil {
		return c, fmt.Errorf("dbbackup %s: %w: %s", strings.Join(args, " "), err, output.Bytes())
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return c, nil
}

// lookEvery is how often a process's memory is read. The peak only grows, so
// that nothing but its growth in the last moment can be missed.
const lookEvery = 5 * time.Millisecond

// waitWatching waits for a started process and returns the peak of its resident
// memory in bytes: VmHWM, which the kernel forgets when the process ends. The
// usage that wait reports would count the largest child as well.
func waitWatching(cmd *exec.Cmd) (peak int64, err error) {
	var (
		ended = make(chan struct{})
		group sync.WaitGroup
	)
	group.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			peak = max(peak, highWaterMark(cmd.Process.Pid))
			select {
			case <-ended:
				return
			case <-tick.C:
			}
		}
	})
	err = cmd.Wait()
	close(ended)
	group.Wait()
	return peak, err
}

// highWaterMark is a process's VmHWM in bytes, and 0 once it has ended.
func highWaterMark(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kB, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kB * 1024
		}
	}
	return 0
}

// bytesBelow is the size of a file, or of all files of a folder.
func bytesBelow(path string) (int64, error) {
	var total int64
	err := filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		return nil
	})
	return total, err
}
