package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"dbbackup/internal/storeserver"
)

// TestMain makes the program available to tests as the command dbbackup, first
// in PATH: a process of its own, as a user runs it. Race detector included.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"dbbackup": func() { main() }})
	os.Exit(1) // testscript.Main does not return
}

// tests closes the shared cluster after the last test.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	if err := storeserver.SetenvForAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return shared.Run(t.m)
}
