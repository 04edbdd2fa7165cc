"""This machine: devices, memory, threads, control groups, child processes, and genai's telemetry switch."""
