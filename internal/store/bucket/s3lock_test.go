package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/storeserver"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "upload" {
		if err := uploadForEver(context.Background(), os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// uploadForEver holds the lock, sends two parts, says so, and waits.
func uploadForEver(ctx context.Context, text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	options := Options{PartBytes: 5 << 20}
	options.Lease.Beat = testBeat
	b, err := Open(ctx, u, options)
	if err != nil {
		return err
	}
	if _, _, err := b.Lock(ctx, store.Holder{Host: "child", PID: os.Getpid()}); err != nil {
		return err
	}
	w, err := b.Create(ctx, "set/half", 0)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, noise(1, 15<<20)); err != nil {
		return err
	}
	fmt.Println("uploading")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// T31: what a killed run sent is found and discarded, and never an object. Its
// lock is free.
func TestKilledUpload(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	server.Bucket(t, "test", false)
	u := s3URL(t, server.Endpoint, "test", "db1", "")
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self, "upload", u.String())
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, len("uploading\n"))
	if n, err := io.ReadFull(out, line); err != nil || string(line) != "uploading\n" {
		t.Fatalf("the child said %q (%v)", line[:n], err)
	}
	b := openTest(t, u, testOptions())
	_, _, err = b.Lock(t.Context(), store.Holder{Host: "b"})
	wantKind(t, err, fault.Locked)
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()

	_, release, err := b.Lock(t.Context(), store.Holder{Host: "b"})
	must(t, err)
	if got := keys(t, b); len(got) != 0 {
		t.Errorf("listed %q", got)
	}
	if _, err := b.Open(t.Context(), "set/half"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("open of what was never committed: %v", err)
	}
	left, err := b.Leftovers(t.Context())
	must(t, err)
	if len(left) != 1 || !strings.HasPrefix(left[0], "set/half"+uploadMark) {
		t.Fatalf("left is %q", left)
	}
	must(t, b.RemoveLeftover(t.Context(), left[0]))
	if left, err = b.Leftovers(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left is %q (%v) after it was removed", left, err)
	}
	must(t, release())
}

// T93: objects that are locked outlive whoever holds the credential, and those
// that newer sets refer to are kept longer.
func TestObjectLock(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	server.Bucket(t, "locks", true)
	server.Bucket(t, "none", false)
	const query = "&object-lock=GOVERNANCE&retain=30d"
	err := openTest(t, s3URL(t, server.Endpoint, "none", "db1", query), partOptions()).CheckWritable(t.Context())
	wantKind(t, err, fault.Precondition)

	b := openTest(t, s3URL(t, server.Endpoint, "locks", "db1", query), partOptions())
	must(t, b.CheckWritable(t.Context()))
	if b.LockPeriod() != 30*24*time.Hour {
		t.Errorf("the period is %s", b.LockPeriod())
	}
	client, ctx := server.Client(), t.Context()
	kept := func(key string) time.Time {
		out, err := client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: aws.String("locks"), Key: aws.String("db1/" + key)})
		must(t, err)
		return *out.Retention.RetainUntilDate
	}
	for key, size := range map[string]int64{"set/small": 10, "set/large": 12 << 20} {
		before := time.Now()
		must(t, writeNoise(ctx, b, key, 1, size, 1<<20, size))
		if until := kept(key); until.Before(before.Add(b.LockPeriod()).Add(-time.Minute)) {
			t.Errorf("%s is kept until %s", key, until)
		}
		later := time.Now().Add(60 * 24 * time.Hour).Truncate(time.Second)
		must(t, b.ExtendLock(ctx, key, later))
		must(t, b.ExtendLock(ctx, key, later.Add(-40*24*time.Hour)))
		if until := kept(key); until.Before(later) {
			t.Errorf("%s is kept until %s, want %s", key, until, later)
		}
		version, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("locks"), Key: aws.String("db1/" + key)})
		must(t, err)
		_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("locks"), Key: aws.String("db1/" + key), VersionId: version.VersionId})
		if err == nil {
			t.Errorf("%s: the locked version was deleted", key)
		}
		// A delete without a version hides the object behind a marker, or is
		// denied. Nothing else.
		if err := b.Delete(ctx, key); err != nil && !errors.Is(err, store.ErrDenied) {
			t.Errorf("delete %s: %v", key, err)
		}
		if _, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("locks"), Key: aws.String("db1/" + key), VersionId: version.VersionId}); err != nil {
			t.Errorf("%s: the locked version is gone: %v", key, err)
		}
	}
	if err := b.ExtendLock(ctx, "set/never", time.Now().Add(time.Hour)); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("extend the lock of nothing: %v", err)
	}
	// The lock of the store and the probe are not locked objects.
	_, release, err := b.Lock(ctx, store.Holder{Host: "a"})
	must(t, err)
	must(t, release())

	without := openTest(t, s3URL(t, server.Endpoint, "locks", "db2", ""), testOptions())
	wantKind(t, without.ExtendLock(ctx, "set/x", time.Now()), fault.Usage)
}
