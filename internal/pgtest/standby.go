package pgtest

import (
	"errors"
	"strconv"
	"testing"
	"time"
)

// Standby makes a streaming replica of the cluster with pg_basebackup and runs
// it until the test is over. The cluster must not have tablespaces: a copy on
// the same machine cannot share their folders.
func (c *Cluster) Standby(tb testing.TB) *Cluster {
	tb.Helper()
	s, err := c.openStandby()
	if err != nil {
		tb.Fatalf("make standby: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close standby: %v", err)
		}
	})
	return s
}

// AwaitReplay waits until a standby has replayed all that the cluster has
// written so far.
func (c *Cluster) AwaitReplay(tb testing.TB, standby *Cluster) {
	tb.Helper()
	lsn := c.QueryString(tb, "postgres", "SELECT pg_current_wal_flush_lsn()")
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if standby.QueryString(tb, "postgres", "SELECT coalesce(pg_last_wal_replay_lsn() >= '"+lsn+"', false)") == "t" {
			return
		}
		<-tick.C
	}
	tb.Fatalf("standby did not replay up to %s in %v\n%s", lsn, patience, standby.Log())
}

func (c *Cluster) openStandby() (*Cluster, error) {
	s, err := newCluster(config{}, c.BinDir)
	if err != nil {
		return nil, err
	}
	s.Password, s.CAFile = c.Password, c.CAFile
	if err := s.copyFrom(c); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.startOnFreePort(config{}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (c *Cluster) copyFrom(primary *Cluster) error {
	return c.runTool("pg_basebackup",
		"--pgdata="+c.DataDir, "--checkpoint=fast", "--wal-method=stream", "--no-sync",
		"--write-recovery-conf", "--host="+primary.Host, "--port="+strconv.Itoa(primary.Port),
		"--username="+primary.User)
}
