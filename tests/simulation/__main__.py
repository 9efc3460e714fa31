from tests.simulation.running import main

main()
