"""What every process agrees on: settings, specs, jobs, stores, registry, signatures."""
