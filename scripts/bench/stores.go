package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/process"
	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/store/dir"
)

// Targets for what a store that is no folder may cost.
const (
	maxStreamed     = 1.15 // of the same backup into a folder
	maxUploaded     = 1.00 // of rclone's time for the same file
	maxSealed       = 1.15 // of the same backup without encryption
	maxListed       = 2.0  // seconds
	maxStreamingRSS = 128e6
)

// uploads is how often the large object is sent by each: the other one takes minutes.
const uploads = 1

// listedSets is how many sets a listing is measured on.
const listedSets = 5000

// stores is how remote stores did, run by run.
type stores struct {
	folder, streamed, sealed []cost
	uploaded, rclone         []cost
	listed, listedAnew       []cost // with a catalog, and without
	listRequests             int
	anewRequests             int
	object                   int64     // bytes of the file that is uploaded
	uploader                 string    // rclone, with its version
	serving                  []float64 // seconds of processor time of the server, in the runs of streamed
}

// s3 is a running versitygw.
type s3 struct {
	cmd      *exec.Cmd
	endpoint string
	data     string // the folder that a bucket is
	log      string // a line for each request
}

const (
	s3Key    = "bench"
	s3Secret = "bench-secret"
	s3Bucket = "bench"
)

func (s *s3) url(prefix string) string {
	return "s3://" + s3Bucket + "/" + prefix + "?region=us-east-1&path-style=true&checksums=when_supported&endpoint=" + s.endpoint
}

// cpu is the processor time that the server has taken so far.
func (s *s3) cpu(ctx context.Context) (time.Duration, error) {
	p, err := process.NewProcessWithContext(ctx, int32(s.cmd.Process.Pid)) //nolint:gosec // the kernel's own
	if err != nil {
		return 0, err
	}
	times, err := p.TimesWithContext(ctx)
	if err != nil {
		return 0, err
	}
	return time.Duration((times.User + times.System) * float64(time.Second)), nil
}

func (s *s3) env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_EC2_METADATA_DISABLED=true",
		"RCLONE_CONFIG_BENCH_TYPE=s3", "RCLONE_CONFIG_BENCH_PROVIDER=Other", "RCLONE_CONFIG_BENCH_ENDPOINT=" + s.endpoint,
		"RCLONE_CONFIG_BENCH_ACCESS_KEY_ID=" + s3Key, "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY=" + s3Secret,
		"RCLONE_CONFIG_BENCH_REGION=us-east-1", "RCLONE_CONFIG=/dev/null",
	}
}

// startS3 runs a server below the folder of the outputs.
func (b *bench) startS3(ctx context.Context) (*s3, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(b.out, "s3")
	s := &s3{endpoint: "http://" + port, data: filepath.Join(root, "data", s3Bucket), log: filepath.Join(root, "requests")}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, b.versitygw, "--access", s3Key, "--secret", s3Secret, "--port", port, "--quiet", "--access-log", s.log,
		"posix", filepath.Dir(s.data))
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start versitygw: %w", err)
	}
	for range 500 {
		conn, err := net.DialTimeout("tcp", port, time.Second)
		if err == nil {
			return s, conn.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("versitygw does not listen"), s.stop())
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *s3) stop() error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	return err
}

// requests is how many the server has answered.
func (s *s3) requests() (int, error) {
	text, err := os.ReadFile(s.log)
	return bytes.Count(text, []byte("\n")), err
}

// measureStores takes turns: into a folder, into the server, into a folder
// encrypted; then one large file by both uploaders; then the listing.
func (b *bench) measureStores(ctx context.Context) (st *stores, err error) {
	server, err := b.startS3(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	st = &stores{}
	if st.uploader, err = firstLine(exec.CommandContext(ctx, "rclone", "version")); err != nil {
		return nil, err
	}
	keys := filepath.Join(b.out, "keys")
	if out, err := b.command(ctx, b.binary, "key", "new", keys).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make keys: %w: %s", err, out)
	}
	folder := filepath.Join(b.out, "folder")
	for turn := range b.nativeRuns {
		for _, run := range []struct {
			into *[]cost
			args []string
		}{
			{&st.folder, []string{"--store", folder}},
			{&st.streamed, []string{"--store", server.url("chunked")}},
			{&st.sealed, []string{"--store", folder, "--encrypt", "--keys", keys}},
		} {
			if err := b.settle(); err != nil {
				return nil, err
			}
			before, err := server.cpu(ctx)
			if err != nil {
				return nil, err
			}
			c, err := b.timed(ctx, server.env(), append([]string{
				"backup", "single", mixed, "--mode", "chunked", "--jobs", "2", "--pg-bin", b.cluster.BinDir, "--quiet",
			}, run.args...)...)
			if err != nil {
				return nil, err
			}
			*run.into = append(*run.into, c)
			if run.into == &st.streamed {
				after, err := server.cpu(ctx)
				if err != nil {
					return nil, err
				}
				st.serving = append(st.serving, (after - before).Seconds())
			}
			if err := errors.Join(os.RemoveAll(folder), os.RemoveAll(filepath.Join(server.data, "chunked"))); err != nil {
				return nil, err
			}
		}
		b.say("stores %d of %d: folder %.1f s, S3 %.1f s, folder encrypted %.1f s", turn+1, b.nativeRuns, last(st.folder), last(st.streamed), last(st.sealed))
	}
	if err := b.measureUpload(ctx, server, st); err != nil {
		return nil, err
	}
	return st, b.measureListing(ctx, server, st)
}

// measureUpload brings one large object to the server, by copy and by rclone.
func (b *bench) measureUpload(ctx context.Context, server *s3, st *stores) error {
	from := filepath.Join(b.out, "from")
	defer os.RemoveAll(from) //nolint:errcheck // below a folder that is removed
	// Not compressed: the object is what counts here.
	if _, err := b.timed(ctx, nil, "backup", "single", mixed, "--mode", "custom", "--compression", "0", "--pg-bin", b.cluster.BinDir, "--quiet", "--store", from); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(from, "*", "databases", mixed+".dump"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("look for the dump in %s: %d found, %w", from, len(found), err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return err
	}
	st.object = info.Size()
	for turn := range uploads {
		c, err := b.timed(ctx, server.env(), "copy", "--from", from, "--to", server.url("copied"), "--quiet")
		if err != nil {
			return err
		}
		st.uploaded = append(st.uploaded, c)
		rclone := b.command(ctx, "rclone", "copyto", "--s3-no-check-bucket", found[0], "bench:"+s3Bucket+"/rclone/dump")
		rclone.Env = append(slices.DeleteFunc(rclone.Env, func(kv string) bool {
			return strings.HasPrefix(kv, "AWS_CA_BUNDLE=") // rclone fails with one, also where there is no TLS
		}), server.env()...)
		theirs, err := pipeline([]*exec.Cmd{rclone}, "")
		if err != nil {
			return err
		}
		st.rclone = append(st.rclone, theirs)
		if err := errors.Join(os.RemoveAll(filepath.Join(server.data, "copied")), os.RemoveAll(filepath.Join(server.data, "rclone"))); err != nil {
			return err
		}
		b.say("upload %d of %d: copy %.1f s, rclone %.1f s", turn+1, uploads, last(st.uploaded), last(st.rclone))
	}
	return nil
}

// measureListing lists many sets, which are written into the server's folder.
func (b *bench) measureListing(ctx context.Context, server *s3, st *stores) error {
	b.say("make %d sets", listedSets)
	if err := makeSets(ctx, filepath.Join(server.data, "many")); err != nil {
		return err
	}
	list := func(into *[]cost, requests *int) error {
		before, err := server.requests()
		if err != nil {
			return err
		}
		c, err := b.timed(ctx, server.env(), "list", "--json", "--quiet", "--store", server.url("many"))
		if err != nil {
			return err
		}
		*into = append(*into, c)
		after, err := server.requests()
		*requests = after - before
		return err
	}
	if err := list(&st.listedAnew, &st.anewRequests); err != nil {
		return err
	}
	// Any run writes the catalog; gc is the one that does nothing else.
	if _, err := b.timed(ctx, server.env(), "gc", "--quiet", "--store", server.url("many")); err != nil {
		return err
	}
	for range b.nativeRuns {
		if err := list(&st.listed, &st.listRequests); err != nil {
			return err
		}
	}
	b.say("list: %.2f s, %d requests; without a catalog %.2f s, %d", last(st.listed), st.listRequests, last(st.listedAnew), st.anewRequests)
	return nil
}

// makeSets writes sets of one small database.
func makeSets(ctx context.Context, path string) error {
	place, err := dir.Open(path, true)
	if err != nil {
		return err
	}
	defer place.Close() //nolint:errcheck // everything is durable by then
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range listedSets {
		group.Go(func() error {
			return makeSet(ctx, place, at.Add(time.Duration(i)*time.Hour))
		})
	}
	return group.Wait()
}

func makeSet(ctx context.Context, place *dir.Dir, at time.Time) error {
	set, err := backupset.Create(ctx, place, backupset.NewID("single-app", at, nil))
	if err != nil {
		return err
	}
	for _, name := range []string{"databases/app.dump", "databases/app.properties.json", "databases/app.create.sql"} {
		if err := set.WriteFile(ctx, name, []byte("{}")); err != nil {
			return err
		}
	}
	return set.Commit(ctx, backupset.Manifest{
		Kind: backupset.Single, Tool: backupset.Tool{Name: "dbbackup", Version: "bench"}, Host: "bench", Started: at, Finished: at.Add(time.Minute),
		Server: backupset.Server{Host: "bench", Port: 5432, User: "bench", Version: "15.18", VersionNum: 150018, SystemIdentifier: "1", Timeline: 1},
		Databases: []backupset.Database{{
			Name: "app", Mode: backupset.Custom, Why: "bench", Dump: "databases/app.dump", Properties: "databases/app.properties.json",
			Create: "databases/app.create.sql", Owner: "bench", Encoding: "UTF8", LocaleProvider: "libc", Collate: "C", CType: "C", Tablespace: "pg_default",
			Roles: []string{}, Tablespaces: []string{}, Extensions: []string{}, Snapshot: backupset.Snapshot{XMin: 1, XMax: 1, XIP: []uint64{}, LSN: "0/1", Time: at},
			Attempts: 1, Compression: "gzip:6", DumpTool: backupset.Tool{Name: "pg_dump", Version: "15.18"}, Started: at, Finished: at.Add(time.Minute),
		}},
	})
}

func (s *stores) markdown() string {
	var out strings.Builder
	row := func(what string, ours, theirs []cost, target float64) {
		ratio := median(seconds(ours)) / median(seconds(theirs))
		fmt.Fprintf(&out, "| %s | %s | %s | %.2f of %.2f: %s | %.1f / %.1f |\n", what, listed(seconds(ours)), listed(seconds(theirs)),
			ratio, target, verdict(ratio, target), median(cpu(ours)), median(cpu(theirs)))
	}
	out.WriteString("\n| remote stores | s | instead, s | time | CPU, s |\n|---|---|---|---|---|\n")
	row("chunked backup into S3 / into a folder", s.streamed, s.folder, maxStreamed)
	row(fmt.Sprintf("`copy` of one object of %s / `rclone copyto`", megabytes(s.object)), s.uploaded, s.rclone, maxUploaded)
	row("chunked backup encrypted / not", s.sealed, s.folder, maxSealed)
	peak := int64(0)
	for _, c := range append(append([]cost{}, s.streamed...), s.uploaded...) {
		peak = max(peak, c.peakRSS)
	}
	took := median(seconds(s.listed))
	fmt.Fprintf(&out, "\nPeak memory while sending: %s of 128 MB: %s. `list` of %d sets: %.2f s of %.1f: %s, with %d requests;\n"+
		"without a catalog %.2f s, with %d.\n",
		megabytes(peak), verdict(float64(peak), maxStreamingRSS), listedSets, took, maxListed, verdict(took, maxListed), s.listRequests,
		last(s.listedAnew), s.anewRequests)
	elsewhere := make([]float64, len(s.streamed)) // as if the server had processors of its own
	for i, c := range s.streamed {
		elsewhere[i] = c.wall.Seconds() - s.serving[i]/float64(runtime.NumCPU())
	}
	fmt.Fprintf(&out, "The server is versitygw on the same machine. Of its processors it takes %.1f s while a backup is sent to it: without that\n"+
		"the backup would take %s s, which is %.2f of the folder's. The uploader is %s, as it comes.\n",
		median(s.serving), listed(elsewhere), median(elsewhere)/median(seconds(s.folder)), s.uploader)
	return out.String()
}
