package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// nodeInit is the first process of a node's own process and mount namespaces: it gives the node private places where
// software writes beside its configured directories, says that it is ready, and then only collects orphans. To kill it
// is to cut the machine's power: the kernel ends every process of the node and drops its mounts.
func nodeInit(arguments []string) error {
	flags := flag.NewFlagSet("node-init", flag.ContinueOnError)
	private := flags.String("private", "", "comma-separated directories to cover with a private tmpfs")
	ready := flags.String("ready", "", "file to create once the directories are in place")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("must be the first process of a process namespace, is %d", os.Getpid())
	}
	for _, path := range strings.Split(*private, ",") {
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", path, err)
		}
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := os.WriteFile(*ready, nil, 0o600); err != nil {
		return err
	}
	for range children {
		// One signal may stand for many children.
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	return nil
}
