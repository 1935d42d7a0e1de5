package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// idle starts n goroutines that wait to receive, and says what each has cost, and what they are to the collector.
func idle(n int) map[string]float64 {
	const collections = 5
	gate := make(chan int)
	var begun atomic.Int64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range n {
		go func() {
			begun.Add(1)
			<-gate
		}()
	}
	for begun.Load() < int64(n) {
		runtime.Gosched()
	}
	created := time.Since(start)
	runtime.ReadMemStats(&after)
	start = time.Now()
	for range collections {
		runtime.GC()
	}
	collected := time.Since(start) / collections
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	longest := slices.Max(stats.Pause[:collections])
	close(gate)
	return map[string]float64{
		"created_s": created.Seconds(),
		"bytes":     float64(after.Sys-before.Sys) / float64(n),
		"gc_ms":     collected.Seconds() * 1e3,
		"pause_us":  longest.Seconds() * 1e6,
	}
}

func pong(to, back chan int, locked bool) {
	if locked {
		runtime.LockOSThread()
	}
	for got := range to {
		back <- got + 1
	}
}

// switches says what one from a goroutine to another takes: of many in a row, and of those after a pause in which the other has gone to sleep.
// If locked, each has a thread of its own.
func switches(rounds int, locked bool) map[string]float64 {
	to, back := make(chan int), make(chan int)
	if locked {
		runtime.LockOSThread()
	}
	go pong(to, back, locked)
	start := time.Now()
	for range rounds {
		to <- 1
		<-back
	}
	busy := time.Since(start).Seconds() / float64(rounds) / 2
	var later []float64
	for range 200 {
		time.Sleep(2 * time.Millisecond)
		start := time.Now()
		to <- 1
		<-back
		later = append(later, time.Since(start).Seconds()/2)
	}
	close(to)
	slices.Sort(later)
	return map[string]float64{"switch_ns": busy * 1e9, "parked_us": later[len(later)/2] * 1e6}
}

func main() {
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	measure(func(run *Run) {
		switch os.Args[1] {
		case "0":
			run.Figures = idle(n)
		case "1":
			run.Figures = switches(n, false)
		default:
			run.Figures = switches(n, true)
		}
	})
}
