package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

func itoa(n int) string { return strconv.Itoa(n) }

// keeperPID is the backend that holds the snapshot.
func keeperPID(t *testing.T, k *Keeper) string {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	pid, err := value[int](t.Context(), k.conn, "ask", "SELECT pg_backend_pid()")
	if err != nil {
		t.Fatal(err)
	}
	return itoa(pid)
}

func TestSnapshotSeesNothingLater(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
	e := resolve(t, paramsOf(c))
	err := e.WithSnapshot(t.Context(), db, func(ctx context.Context, k *Keeper) error {
		c.Exec(t, db, "INSERT INTO t VALUES (2)")
		reader := connect(t, e, db)
		for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SET TRANSACTION SNAPSHOT " + pgname.Literal(k.Snapshot.Name)} {
			if err := reader.Exec(ctx, "import", sql); err != nil {
				return err
			}
		}
		rows, err := value[int](ctx, reader, "count", "SELECT count(*) FROM public.t")
		if err != nil || rows != 1 {
			return fmt.Errorf("%d rows, want 1: %w", rows, err)
		}
		s := k.Snapshot
		if s.XMin == 0 || s.XMax < s.XMin || s.LSN == "" || time.Since(s.Time).Abs() > time.Minute {
			return fmt.Errorf("snapshot %+v", s)
		}
		return k.Held(ctx)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLostKeeperEndsTheWork(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	e := resolve(t, paramsOf(c))
	began := time.Now()
	err := e.WithSnapshot(t.Context(), db, func(ctx context.Context, k *Keeper) error {
		c.Query(t, "postgres", "SELECT pg_terminate_backend("+keeperPID(t, k)+", 5000)")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute):
			return errors.New("nobody ended the work")
		}
	})
	wantKind(t, err, fault.Unavailable)
	if took := time.Since(began); took > 3*pingEvery {
		t.Errorf("the loss was noticed after %v", took)
	}
}

func TestHeldNoticesTheLossAtOnce(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, paramsOf(c))
	_ = e.WithSnapshot(t.Context(), "postgres", func(ctx context.Context, k *Keeper) error {
		if err := k.Held(ctx); err != nil {
			t.Error(err)
		}
		c.Query(t, "postgres", "SELECT pg_terminate_backend("+keeperPID(t, k)+", 5000)")
		wantKind(t, k.Held(ctx), fault.Unavailable)
		return nil
	})
}

func TestWithSnapshotReturnsWhatTheWorkDoes(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, paramsOf(c))
	failure := errors.New("work failed")
	if err := e.WithSnapshot(t.Context(), "postgres", func(context.Context, *Keeper) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("error %v, want the work's own", err)
	}
	// Its session ends with it.
	eventually(t, "the keeper's session is gone", func() bool {
		return c.QueryString(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg test' AND state = 'idle in transaction'") == "0"
	})
}

func TestParseSnapshot(t *testing.T) {
	xmin, xmax, xip, err := parseSnapshot("10:20:10,14,15")
	if err != nil || xmin != 10 || xmax != 20 || !slices.Equal(xip, []uint64{10, 14, 15}) {
		t.Errorf("got %d %d %v, %v", xmin, xmax, xip, err)
	}
	if xmin, xmax, xip, err = parseSnapshot("18446744073709551615:18446744073709551615:"); err != nil || xmin != xmax || len(xip) != 0 {
		t.Errorf("got %d %d %v, %v", xmin, xmax, xip, err)
	}
	for _, bad := range []string{"", "1:2", "1:2:3:4", "a:2:", "-1:2:", "1:18446744073709551616:", "1:2:x", "1 :2:"} {
		if _, _, _, err := parseSnapshot(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzParseSnapshot(f *testing.F) {
	for _, seed := range []string{"10:20:10,14,15", "1:1:", "::", "1:2:,", "-1:2:3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		xmin, xmax, xip, err := parseSnapshot(text)
		if err != nil {
			return
		}
		var list []string
		for _, x := range xip {
			list = append(list, strconv.FormatUint(x, 10))
		}
		again := fmt.Sprintf("%d:%d:%s", xmin, xmax, strings.Join(list, ","))
		min2, max2, xip2, err := parseSnapshot(again)
		if err != nil || min2 != xmin || max2 != xmax || !slices.Equal(xip, xip2) {
			t.Fatalf("%q was read as %q, and that as %d %d %v, %v", text, again, min2, max2, xip2, err)
		}
	})
}
