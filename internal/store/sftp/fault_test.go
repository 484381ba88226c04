package sftp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/storeserver"
)

// TestMain lets the test binary be the process that dies.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "child" {
		fmt.Println(half(os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// half writes half an object, says so, and waits for its end.
func half(link, identity, known string) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	s, err := Open(context.Background(), u, Options{IdentityFiles: []string{identity}, KnownHosts: []string{known}})
	if err != nil {
		return err
	}
	w, err := s.Create(context.Background(), "set/half", 0)
	if err != nil {
		return err
	}
	if _, err := w.Write(bytes.Repeat([]byte("half"), 1<<18)); err != nil {
		return err
	}
	fmt.Println("written")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestKilledWriterLeavesALeftover(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	d := openNew(t, server)
	must(t, write(t, d, "set/whole", "x"))
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "child", server.URL(d.path).String(), server.Identity, server.KnownHosts)
	in, err := cmd.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "written\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed

	wantKeys(t, d, "set/whole")
	names, err := d.Leftovers(t.Context())
	must(t, err)
	if len(names) != 1 || !strings.HasPrefix(names[0], "set/.half.partial-") {
		t.Fatalf("leftovers: %q", names)
	}
	must(t, d.RemoveLeftover(t.Context(), names[0]))
	wantTree(t, d.path, "set", "set/whole")
	must(t, write(t, d, "set/half", "again"))
}

func wantKeys(t *testing.T, s store.Store, want ...string) {
	t.Helper()
	var got []string
	must(t, s.List(t.Context(), "", func(info store.Info) error { got = append(got, info.Key); return nil }))
	if !slices.Equal(got, want) {
		t.Errorf("the store lists %q, want %q", got, want)
	}
}

func wantHint(t *testing.T, err error, words ...string) {
	t.Helper()
	hints := strings.Join(fault.Hints(err), "; ")
	for _, word := range words {
		if !strings.Contains(hints, word) {
			t.Errorf("hints of %v are %q, want %q in them", err, hints, word)
		}
	}
}

// knownAs returns a file that holds the server's key for another address.
func knownAs(t *testing.T, server *storeserver.SSHD, address string) string {
	t.Helper()
	text, err := os.ReadFile(server.KnownHosts)
	must(t, err)
	_, key, _ := strings.Cut(string(text), " ")
	host, port, _ := strings.Cut(address, ":")
	return newFile(t, fmt.Sprintf("[%s]:%s %s", host, port, key))
}

func newFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func data(n int) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(i>>16 ^ i>>8 ^ i)
	}
	return text
}

// An upload goes on where it was cut, in whatever it does.
func TestUploadIsCut(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	folder := t.TempDir()
	s := p.open(t, server, folder, "timeout=10s")
	want := data(12<<20 + 7)
	w, err := s.Create(t.Context(), "set/cut", 0)
	must(t, err)
	for i, part := range [][]byte{want[:4<<20], want[4<<20 : 8<<20], want[8<<20:]} {
		p.up.Store(3 << 20)
		_, err = w.Write(part)
		must(t, err)
		for end := time.Now().Add(30 * time.Second); p.cuts.Load() <= int64(i); time.Sleep(10 * time.Millisecond) { // what was written is still on its way
			if time.Now().After(end) {
				t.Fatalf("%d cuts within %d parts", p.cuts.Load(), i+1)
			}
		}
	}
	must(t, w.Commit())
	wantContent(t, s, "set/cut", want)
	wantTree(t, folder, "set", "set/cut")
}

func wantContent(t *testing.T, s store.Store, key string, want []byte) {
	t.Helper()
	r, err := s.Open(t.Context(), key)
	must(t, err)
	got, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes that differ from the %d written", key, len(got), len(want))
	}
}

// Wherever it is cut, from the first request to the last, an object is there once
// and as it was written.
func TestObjectIsCutAnywhere(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	folder := t.TempDir()
	s := p.open(t, server, folder, "timeout=10s")
	want := data(100_000)
	cuts := int64(0)
	for _, stream := range []*atomic.Int64{&p.up, &p.down} {
		for at := int64(0); ; at += 60 {
			key := fmt.Sprintf("set/%d", at)
			stream.Store(at)
			must(t, write(t, s, key, string(want)))
			left := stream.Swap(1 << 60)
			wantContent(t, s, key, want)
			must(t, s.Delete(t.Context(), key))
			if left >= 0 {
				break
			}
			if stream == &p.up && at > 3000 && at < 95_000 {
				at += 9000 // in the middle of the data
			}
		}
		if n := p.cuts.Load() - cuts; n < 10 {
			t.Errorf("%d cuts", n)
		}
		cuts = p.cuts.Load()
	}
}

// What the server acknowledged and has no more, as after a power failure, is not
// taken for the object.
func TestServerForgetsWhatItAcknowledged(t *testing.T) {
	for name, forget := range map[string]func(temp string) error{
		"cut off": func(temp string) error { return os.Truncate(temp, 1<<20) },
		"zeros": func(temp string) error {
			file, err := os.OpenFile(temp, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = file.WriteAt(make([]byte, 4096), 1<<20)
			return errors.Join(err, file.Close())
		},
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			server := storeserver.StartSSHD(t, "")
			p := startProxy(t, server)
			folder := t.TempDir()
			s := p.open(t, server, folder, "timeout=10s")
			w, err := s.Create(t.Context(), "set/object", 0)
			must(t, err)
			_, err = w.Write(data(8 << 20)) // six of it are acknowledged
			must(t, err)
			p.cut()
			found, err := filepath.Glob(filepath.Join(folder, "set", ".object.partial-*"))
			must(t, err)
			if len(found) != 1 {
				t.Fatalf("temporary files: %q", found)
			}
			must(t, forget(found[0]))
			_, err = w.Write(data(4 << 20))
			if err == nil {
				err = w.Commit()
			}
			if err == nil || name != "removed" && !fault.Is(err, fault.Integrity) {
				t.Errorf("got %v, want kind Integrity", err)
			}
			if w.Commit() == nil {
				t.Error("committed after a failure")
			}
			must(t, w.Abort())
			wantTree(t, folder)
			must(t, write(t, s, "set/object", "again"))
		})
	}
}

func TestDownloadIsCut(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	folder := t.TempDir()
	s := p.open(t, server, folder, "timeout=10s")
	want := data(12<<20 + 7)
	must(t, write(t, s, "set/object", string(want)))
	r, err := s.OpenRange(t.Context(), "set/object", 5, -1)
	must(t, err)
	var got bytes.Buffer
	for range 2 {
		p.down.Store(3 << 20)
		_, err := io.CopyN(&got, r, 4<<20)
		must(t, err)
	}
	_, err = io.Copy(&got, r)
	must(t, err)
	if !bytes.Equal(got.Bytes(), want[5:]) {
		t.Errorf("read %d bytes that differ from the %d written", got.Len(), len(want)-5)
	}
	if p.cuts.Load() < 2 {
		t.Errorf("%d cuts", p.cuts.Load())
	}
	must(t, r.Close())
}

func TestObjectIsChangedWhileReadAgain(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	folder := t.TempDir()
	s := p.open(t, server, folder, "timeout=10s")
	must(t, write(t, s, "object", string(data(8<<20))))
	r, err := s.Open(t.Context(), "object")
	must(t, err)
	_, err = io.CopyN(io.Discard, r, 1<<20)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "object"), data(9<<20), 0o600))
	p.cut()
	if _, err := io.Copy(io.Discard, r); !fault.Is(err, fault.Integrity) {
		t.Errorf("got %v, want kind Integrity", err)
	}
	must(t, r.Close())
}

func TestServerIsKilledAndComesBack(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	d := openNew(t, server)
	want := data(8 << 20)
	must(t, write(t, d, "set/object", string(want)))
	w, err := d.Create(t.Context(), "set/half", 0)
	must(t, err)
	_, err = w.Write(want)
	must(t, err)
	r, err := d.Open(t.Context(), "set/object")
	must(t, err)
	var got bytes.Buffer
	_, err = io.CopyN(&got, r, 1<<20)
	must(t, err)

	server.Kill()
	back := make(chan struct{})
	go func() { defer close(back); time.Sleep(time.Second); server.Start(t) }()
	must(t, w.Commit())
	_, err = io.Copy(&got, r)
	<-back
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("read %d bytes of %d, %v", got.Len(), len(want), err)
	}
	must(t, r.Close())
	wantKeys(t, d, "set/half", "set/object")
	wantContent(t, d, "set/half", want)
}

func TestServerIsGone(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	s := p.open(t, server, t.TempDir(), "timeout=1s")
	must(t, write(t, s, "object", "x"))
	server.Kill()
	if _, err := s.Open(t.Context(), "object"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("open: got %v, want kind Unavailable", err)
	}
	if err := s.List(t.Context(), "", func(store.Info) error { return nil }); !fault.Is(err, fault.Unavailable) {
		t.Errorf("list: got %v, want kind Unavailable", err)
	}
	server.Start(t)
	wantKeys(t, s, "object")
}

// A peer that says nothing any more, without closing (T85).
func TestServerIsSilent(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	folder := t.TempDir()
	s := p.open(t, server, folder, "timeout=1s")
	must(t, write(t, s, "object", string(data(8<<20))))
	w, err := s.Create(t.Context(), "other", 0)
	must(t, err)
	r, err := s.Open(t.Context(), "object")
	must(t, err)
	p.mute.Store(true)
	if _, err := io.Copy(io.Discard, r); err == nil {
		t.Error("read all from a silent server")
	}
	must(t, r.Close())
	_, err = w.Write(data(8 << 20))
	if err == nil {
		err = w.Commit()
	}
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("write: got %v, want kind Unavailable", err)
	}
	p.mute.Store(false)
	wantKeys(t, s, "object")
}

// What waits for a silent server ends when its context does.
func TestContextEndsTheWaiting(t *testing.T) {
	server := storeserver.StartSSHD(t, "")
	p := startProxy(t, server)
	s := p.open(t, server, t.TempDir(), "timeout=1h")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := s.Create(ctx, "object", 0)
	must(t, err)
	p.mute.Store(true)
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = w.Write(data(8 << 20))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
}

// T13
func TestServerIsFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(folder, syscall.MNT_DETACH)) })
	d := openAt(t, storeserver.StartSSHD(t, ""), folder)
	must(t, write(t, d, "small", "x"))
	err := write(t, d, "set/big", string(data(2<<20)))
	if err == nil {
		t.Fatal("two megabytes were stored in one")
	}
	wantHint(t, err, "full")
	wantTree(t, folder, "small")
	must(t, write(t, d, "set/again", string(data(500<<10))))
	if bytes, _, err := (roomy{d.Store}).Free(); err != nil || bytes == 0 || bytes > 1<<20 {
		t.Errorf("free: %d bytes, %v", bytes, err)
	}
	for i := 0; write(t, d, fmt.Sprintf("fill/%d", i), string(data(4<<10))) == nil; i++ {
	}
	if err := d.CheckWritable(t.Context()); !fault.Is(err, fault.Precondition) {
		t.Errorf("probe of a full file system: %v", err)
	}
}

func TestDeleteIsDenied(t *testing.T) {
	folder := t.TempDir()
	must(t, write(t, openAt(t, storeserver.StartSSHD(t, ""), folder), "set/object", "x"))
	d := openAt(t, storeserver.StartSSHD(t, "internal-sftp -P remove,rmdir"), folder)
	if err := d.Delete(t.Context(), "set/object"); !errors.Is(err, store.ErrDenied) {
		t.Errorf("got %v, want ErrDenied", err)
	}
	wantKeys(t, d, "set/object")
}

func TestReadOnlyServer(t *testing.T) {
	folder := t.TempDir()
	must(t, write(t, openAt(t, storeserver.StartSSHD(t, ""), folder), "set/object", "x"))
	d := openAt(t, storeserver.StartSSHD(t, "internal-sftp -R"), folder)
	if err := d.CheckWritable(t.Context()); !fault.Is(err, fault.Precondition) {
		t.Errorf("probe: got %v, want kind Precondition", err)
	}
	wantHint(t, write(t, d, "set/other", "x"), "internal-sftp -R")
	r, err := d.Open(t.Context(), "set/object")
	must(t, err)
	must(t, r.Close())
}
