package pgtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Save writes what Attach needs into the cluster's folder, readable by its
// owner only: it holds the password.
func (c *Cluster) Save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(statePath(c.dir), text, 0o600)
}

// Attach returns the cluster that another process made with Detached and Save.
// Its Stop, Kill and Restart are for the process that started it.
func Attach(dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(statePath(dir))
	if err != nil {
		return nil, fmt.Errorf("attach to the cluster in %s: %w", dir, err)
	}
	c := &Cluster{dir: dir, detached: true}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("attach to the cluster in %s: %w", dir, err)
	}
	return c, nil
}

func statePath(dir string) string { return filepath.Join(dir, "cluster.json") }
